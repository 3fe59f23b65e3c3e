"""A trained detector for where this package is not: an ordinary config with checkpoint, ONNX, safetensors."""

from .model_config import Unsupported, plain_config, plain_weights
from .onnx_export import Exported, export_onnx

__all__ = ['Exported', 'Unsupported', 'export_onnx', 'plain_config', 'plain_weights']
