"""State dicts of mmrotate's ReResNet and ReFPN load as they are, and give the same maps."""

import pytest
import torch

from mmrotate_plugin.models import ReFPN, ReResNet
from mmrotate_plugin.testing import randomize_norms_, relative_error


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_state_of_mmrotates_redet_loads_and_gives_the_same_maps(mode):
    from mmrotate.models.backbones.re_resnet import ReResNet as TheirReResNet
    from mmrotate.models.necks.re_fpn import ReFPN as TheirReFPN

    channels = [16, 32, 64, 128]
    # e2cnn takes half a minute to build it at full width
    their_backbone = TheirReResNet(18, base_channels=16, stem_channels=16, out_indices=(0, 1, 2, 3))
    their_neck = TheirReFPN(channels, 16, 5)
    states = []
    for module in (their_backbone, their_neck):
        randomize_norms_(module)
        getattr(module, mode)()
        states.append(module.state_dict())  # holds filters in eval mode, bases in both
        module.eval()
    backbone, neck = ReResNet(18, base_channels=16).eval(), ReFPN(channels, 16, 5).eval()
    backbone.load_state_dict(states[0])
    neck.load_state_dict(states[1])

    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        their_maps, maps = their_backbone(x), backbone(x)
        their_levels, levels = their_neck(their_maps), neck(maps)
    for actual, expected in zip(maps, their_maps, strict=True):
        assert relative_error(actual, expected.tensor) < 1e-5
    for actual, expected in zip(levels, their_levels, strict=True):
        assert relative_error(actual, expected) < 1e-5


def test_weights_of_another_depth_do_not_load():
    with pytest.raises(RuntimeError, match='Missing key'):
        ReResNet(34, base_channels=16).load_state_dict(ReResNet(18, base_channels=16).state_dict())
