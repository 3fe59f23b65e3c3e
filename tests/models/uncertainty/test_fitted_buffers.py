import pytest
import torch
from torch import nn

from mmrotate_plugin.models.uncertainty.fitted_buffers import ERROR, GAIN, expect_fitted, is_fitted, set_fitted


@pytest.mark.parametrize('key', [GAIN, f'module.{ERROR}', 'backbone.layer1.variance_gain', 'variance_gain_noise'])
def test_keys_of_a_calibration_are_known(key):
    assert is_fitted(key)


@pytest.mark.parametrize('key', ['neck.weight', 'detection_gain.weight', 'bbox_head.detection_gains'])
def test_weights_are_none_of_them(key):
    assert not is_fitted(key)


def test_buffers_follow_the_state_dict():
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    other._register_load_state_dict_pre_hook(expect_fitted, with_module=True)
    set_fitted(model, GAIN, torch.tensor([1.0, 2.0]))
    set_fitted(other, ERROR, torch.ones(5, 2))  # of an earlier calibration, which the loaded one replaces
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.get_buffer(GAIN), model.get_buffer(GAIN)) and ERROR not in other.state_dict()
    set_fitted(model, GAIN, None)
    assert set(model.state_dict()) == {'weight', 'bias'}
    other.load_state_dict(model.state_dict())
    assert set(other.state_dict()) == {'weight', 'bias'}
