"""ReDet as a registered detector."""

from typing import Any

from mmdet.models.detectors import CascadeRCNN

from ...registry import MODELS
from ..utils.group_check import check_groups


@MODELS.register_module()
class ReDet(CascadeRCNN):
    """ReDet: a two-stage detector whose backbone, neck and second RoI align share one rotation group.

    Han et al., ReDet: A Rotation-equivariant Detector for Aerial Object Detection, CVPR 2021 (arXiv:2103.07733). It is
    mmdet's `CascadeRCNN` made of the parts that the config names (`ReResNet`, `ReFPN`, `RiRoIAlignRotated`), and
    looks whether their groups go together.

    Args:
        args, kwargs: Of mmdet's `CascadeRCNN`: backbone, neck, rpn_head, roi_head, train_cfg, test_cfg, ...

    Raises:
        ValueError: If the groups of two parts differ; the message names both parts and both groups.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_groups(self)
