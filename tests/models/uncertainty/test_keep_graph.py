from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.models.uncertainty.keep_graph import keep_graph


def test_detach_keeps_the_graph_in_this_thread_alone():
    own = torch.Tensor.detach
    x = torch.ones(3, requires_grad=True)
    y = 2 * x
    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyError), keep_graph():
        assert y.detach().requires_grad
        assert not pool.submit(lambda: y.detach().requires_grad).result()
        assert not pool.submit(lambda: Gaussian(y, y.square()).detach().requires_grad).result()
        with keep_graph():
            assert y.detach().requires_grad
        assert y.detach().requires_grad
        raise KeyError
    assert torch.Tensor.detach is own and not y.detach().requires_grad
