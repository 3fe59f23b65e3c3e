"""Parts of two-stage detectors, where mmcv has its compiled operators.

The RoI extractors of mmdet and mmrotate look their layers up as attributes of `mmcv.ops`. There our layer has its
scoped name, so that ``roi_layer=dict(type='mmrotate_plugin.RiRoIAlignRotated', ...)`` finds it. The bare name is that
of mmcv's.
"""

try:
    from mmcv import ops
except ImportError:  # mmcv-lite
    __all__ = []
else:
    from .ri_roi_align import RiRoIAlignRotated

    setattr(ops, 'mmrotate_plugin.RiRoIAlignRotated', RiRoIAlignRotated)
    __all__ = ['RiRoIAlignRotated']
