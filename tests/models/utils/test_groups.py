import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import mmrotate_plugin  # noqa: F401
from mmrotate_plugin.equivariant import ennIrrepConv
from mmrotate_plugin.models import ReFPN, ReResNet
from mmrotate_plugin.models.roi_heads import RiRoIAlignRotated
from mmrotate_plugin.models.utils.group_check import check_groups


def detector(backbone='C8', neck='C8', orientations=8, group_pool=None, head=None):
    net = nn.Module()
    net.backbone = ReResNet(18, group=backbone, base_channels=16, num_stages=1, strides=(1,), dilations=(1,),
                            out_indices=(0,)) if backbone else nn.Conv2d(3, 16, 3)  # fmt: skip
    net.neck = ReFPN([16], 16, 1, group=neck, group_pool=group_pool) if neck else nn.Conv2d(16, 16, 1)
    if head:
        net.bbox_head = nn.Sequential(ennIrrepConv(16, (0, 1), 1, group=head))
    if orientations:
        net.roi_layer = RiRoIAlignRotated(7, 0.25, num_orientations=orientations)
    return net


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(backbone='C4', neck='C4', orientations=4),
        dict(backbone='D8', neck='D8', orientations=8),
        dict(neck=None, orientations=0),
        dict(backbone=None, neck=None, orientations=0),
        dict(group_pool='max', orientations=0),
        dict(orientations=0, head='C8'),
    ],
)
def test_parts_of_one_group_pass(options):
    check_groups(detector(**options))


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(neck='C4'), ["backbone has group 'C8'", "neck has group 'C4'", 'ReResNet', 'ReFPN']),
        (dict(orientations=4), ['roi_layer', 'num_orientations=4', "neck has group 'C8'", 'write num_orientations=8']),
        (dict(backbone='D8', neck='D8', orientations=16), ['num_orientations=16', "'D8'", 'write num_orientations=8']),
        (dict(neck=None), ['roi_layer', 'neck (Conv2d) has no group']),
        (dict(group_pool='max'), ['neck (ReFPN) pools its orientations away']),
        (dict(head='C4'), ["bbox_head has group 'C4'", "neck has group 'C8'", "write bbox_head.group='C8'"]),
        (dict(neck=None, head='C8', orientations=0), ["bbox_head has group 'C8'", 'neck (Conv2d) has no group']),
        (dict(group_pool='max', head='C8', orientations=0), ["bbox_head has group 'C8'", 'leave group_pool out']),
    ],
)
def test_mixed_groups_are_refused_with_both_named(options, words):
    with pytest.raises(ValueError) as error:
        check_groups(detector(**options))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(neck=dict(group='C4')), ["backbone has group 'C8'", "neck has group 'C4'"]),
        (dict(backbone=dict(group='C4'), neck=dict(group='C4')), ['num_orientations=8', "neck has group 'C4'"]),
    ],
)
def test_redet_refuses_them_when_it_is_built(change, words):
    from mmrotate.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    cfg = Config.fromfile('configs/synthetic/redet_re18_refpn_synthetic.py')
    init_default_scope('mmrotate')
    with torch.device('meta'):
        assert type(MODELS.build(cfg.model)).__name__ == 'ReDet'
        cfg.merge_from_dict(dict(model=change))
        with pytest.raises(ValueError) as error:
            MODELS.build(cfg.model)
    for word in words:
        assert word in str(error.value)
