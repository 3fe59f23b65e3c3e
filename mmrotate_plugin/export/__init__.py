"""A trained detector for where this package is not: an ordinary config with checkpoint, ONNX, safetensors."""

from .onnx_file import Exported, export_onnx
from .plain import Unsupported, plain_config, plain_weights

__all__ = ['Exported', 'Unsupported', 'export_onnx', 'plain_config', 'plain_weights']
