"""Multiply-adds, counted by hand, by torch, and by mmcv and mmengine, whose counters the hosts' get_flops.py use."""

import pytest
import torch
from mmcv.cnn import get_model_complexity_info as by_mmcv
from mmcv.cnn.utils import flops_counter
from mmengine.analysis import FlopAnalyzer
from torch import nn

from mmrotate_plugin.equivariant import ennConv, export
from mmrotate_plugin.equivariant.fields import group_order
from mmrotate_plugin.models import ReResNet, ResNet
from mmrotate_plugin.models.utils.complexity import count_macs, irrep_macs, torch_counter
from mmrotate_plugin.models.utils.fourier_path import without_fourier

needs_counter = pytest.mark.skipif(torch_counter is None, reason='torch 2.0 has no counter')
SIZE = 33


def convolutions(net: nn.Module, x: torch.Tensor) -> int:
    """By hand: values of each output times channels and kernel, seen by hooks on plain convolutions."""
    total = 0

    def count(module, _, out):
        nonlocal total
        total += out.numel() * module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]

    handles = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return total


@pytest.fixture(scope='module')
def networks():
    options = dict(depth=18, base_channels=16, out_indices=(3,))
    return ReResNet(group='C8', **options).eval(), ResNet(**options).eval()


@needs_counter
def test_a_network_counts_as_the_plain_one_of_its_width(networks):
    x = torch.zeros(1, 3, SIZE, SIZE)
    expected = convolutions(networks[1], x)
    assert convolutions(export(networks[0]), x) == expected
    for net in networks:
        assert count_macs(net, lambda net=net: net(x)) == expected


def test_mmcv_counts_them_alike(networks):
    ours, plain = (by_mmcv(n, (3, SIZE, SIZE), print_per_layer_stat=False, as_strings=False) for n in networks)
    assert ours[0] == plain[0] > convolutions(networks[1], torch.zeros(1, 3, SIZE, SIZE))  # norms and ReLU too
    assert ours[1] == sum(p.numel() for p in networks[0].parameters()) < plain[1]


@pytest.mark.parametrize('kept', [False, True])
def test_mmengine_counts_them_alike(networks, kept):
    x = torch.zeros(1, 3, SIZE, SIZE)
    if not kept:
        for layer in networks[0].modules():
            if isinstance(layer, ennConv):
                layer._kept = {}
    ours, plain = (FlopAnalyzer(net, (x,)).unsupported_ops_warnings(False).by_operator() for net in networks)
    assert ours['conv'] == plain['conv'] == convolutions(networks[1], x)
    assert not ours['matmul']  # filters are kept in inference


def test_mmcv_alone_does_not_know_the_layers():
    """When this fails, mmcv counts them itself, and `_with_layers` can go."""
    assert ennConv not in flops_counter.get_modules_mapping.__wrapped__()


@needs_counter
@pytest.mark.parametrize('group', ['C4', 'C5', 'C8', 'D3', 'D4', 'D8'])
def test_the_fourier_path_is_counted_as_it_is_computed(group):
    order = group_order(group)
    fields = 64
    conv = ennConv(fields * order, 2 * fields * order, 1, group=group, bias=False).eval()
    x = torch.zeros(2, fields * order, 5, 7)
    as_convolution = fields * 2 * fields * order**2 * 70
    assert count_macs(conv, lambda: conv(x)) == as_convolution
    with torch.no_grad():
        assert conv._goes_by_fourier(x)
        conv(x)  # its spectrum is kept from now on
    by_fourier = count_macs(conv, lambda: conv(x), fourier=True)
    assert by_fourier == irrep_macs(group, fields, 2 * fields, 70)
    assert by_fourier < as_convolution
    other = ennConv(fields * order, 2 * fields * order, 1, group=group, bias=False).eval().requires_grad_(False)
    conv.requires_grad_(False)
    with without_fourier(conv):
        assert not conv._goes_by_fourier(x) and other._goes_by_fourier(x)
    assert conv._goes_by_fourier(x) and 'fourier' not in vars(conv)
