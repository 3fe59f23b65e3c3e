import torch
from torch import nn

from mmrotate_plugin.engine.optimizers.bf16_optim_wrapper import BFloat16OptimWrapper


def test_forward_is_bfloat16_and_parameters_stay_float32():
    model = nn.Linear(4, 4)
    wrapper = BFloat16OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    before = model.weight.clone()
    with wrapper.optim_context(model):
        out = model(torch.ones(2, 4))
    assert out.dtype == torch.bfloat16
    assert model(torch.ones(2, 4)).dtype == torch.float32
    wrapper.update_params(out.float().square().mean())
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)


def test_it_is_found_by_name():
    from mmengine.registry import OPTIM_WRAPPERS

    for name in ('BFloat16OptimWrapper', 'mmrotate_plugin.BFloat16OptimWrapper'):
        assert OPTIM_WRAPPERS.get(name) is BFloat16OptimWrapper
        with OPTIM_WRAPPERS.switch_scope_and_registry('mmdet') as registry:
            assert registry.get(name) is BFloat16OptimWrapper
