"""Export a trained detector for use without this package: an ordinary config with checkpoint, ONNX, safetensors."""

from .config_rewrite import Unsupported
from .model_config import plain_config, plain_weights
from .onnx_export import Exported, export_onnx

__all__ = ['Exported', 'Unsupported', 'export_onnx', 'plain_config', 'plain_weights']
