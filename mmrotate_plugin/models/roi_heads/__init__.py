"""Parts of two-stage detectors; they need mmcv's compiled operators.

The RoI extractors of mmdet and mmrotate look up their layers as attributes of `mmcv.ops`. Our layer is there under its
scoped name, so that ``roi_layer=dict(type='mmrotate_plugin.RiRoIAlignRotated', ...)`` finds it. The bare name means
mmcv's layer.
"""

try:
    from mmcv import ops
except ImportError:  # mmcv-lite
    __all__ = []
else:
    from .ri_roi_align import RiRoIAlignRotated

    setattr(ops, 'mmrotate_plugin.RiRoIAlignRotated', RiRoIAlignRotated)
    __all__ = ['RiRoIAlignRotated']
