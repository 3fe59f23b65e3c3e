"""The profile counts each operation by hand-checked costs, and gives it to the layer that it belongs to."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrotate_plugin.apis.benchmark.profile import grouped, profile
from mmrotate_plugin.apis.benchmark.roofline import Limits, measure_limits

CPU = torch.device('cpu')
LIMITS = Limits(flops=1e9, bytes=1e9)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, bias=False)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(6, 5, bias=False))

    def forward(self, x):
        return self.rest(self.first(x)) * 2


def by_key(rows):
    return {(row['layer'], row['phase'], row['operation']): row for row in rows}


def test_costs_and_layers_of_a_training_step():
    net = Net()
    x = torch.randn(2, 3, 8, 8)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        net(x).sum().backward()
        optimizer.step()

    rows, whole = profile(net, step, LIMITS, CPU, optimizer=optimizer, rounds=2)
    found = by_key(rows)
    assert whole > 0 and all(row['seconds'] > 0 for row in rows)
    pixels = 2 * 4 * 6 * 6
    conv = found['first', 'forward', 'convolution']
    assert (conv['calls'], conv['flops']) == (1, 2 * pixels * 27)
    assert conv['bytes'] == 4 * (x.numel() + pixels + 4 * 27)
    back = found['first', 'backward', 'convolution_backward']
    assert back['flops'] == 2 * pixels * 27, 'the images need no gradient'
    relu = found['rest.0', 'forward', 'relu']
    assert (relu['flops'], relu['bytes'], relu['bound']) == (pixels, 8 * pixels, 'memory')
    assert relu['least'] == 8 * pixels / LIMITS.bytes
    assert found['rest.1', 'forward', 'mm']['flops'] == 2 * (pixels // 6) * 6 * 5
    assert ('rest.0', 'backward', 'threshold_backward') in found
    assert ('', 'forward', 'mul') in found and ('', 'backward', 'mul') in found
    assert {row['phase'] for row in rows} == {'forward', 'backward', 'update'}
    assert {row['layer'] for row in rows if row['phase'] == 'update'} == {''}
    total = grouped(rows, LIMITS, 'phase')
    assert sum(row['flops'] for row in total) == sum(row['flops'] for row in rows)
    assert [row['seconds'] for row in total] == sorted((row['seconds'] for row in total), reverse=True)


def test_views_are_free_and_writing_in_place_is_not():
    x = torch.ones(4, 6)
    rows, _ = profile(nn.Identity(), lambda: x.view(6, 4).t().add_(1), LIMITS, CPU, rounds=1)
    found = by_key(rows)
    assert found['', 'forward', 'view']['bytes'] == found['', 'forward', 't']['flops'] == 0
    assert found['', 'forward', 'add_']['bytes'] == 2 * 96
    wide = torch.ones(1, 6).expand(4, 6)
    rows, _ = profile(nn.Identity(), lambda: wide + 1, LIMITS, CPU, rounds=1)
    assert by_key(rows)['', 'forward', 'add']['bytes'] == 24 + 96, 'an expanded tensor is read once'


@pytest.mark.parametrize(
    ('run', 'name', 'flops'),
    [
        (lambda: torch.ones(2, 3, 4) @ torch.ones(2, 4, 5), 'bmm', 2 * 2 * 3 * 4 * 5),
        (lambda: torch.addmm(torch.ones(3), torch.ones(2, 4), torch.ones(4, 3)), 'addmm', 2 * 2 * 4 * 3),
        (lambda: torch.baddbmm(torch.ones(1), torch.ones(2, 3, 4), torch.ones(2, 4, 5)), 'baddbmm', 240),
        (lambda: F.conv2d(torch.ones(1, 4, 5, 5), torch.ones(6, 2, 3, 3), groups=2), 'convolution', 2 * 54 * 18),
        (lambda: F.conv_transpose2d(torch.ones(1, 4, 5, 5), torch.ones(4, 3, 2, 2)), 'convolution', 2 * 100 * 12),
    ],
)
def test_products_and_sums(run, name, flops):
    rows, _ = profile(nn.Identity(), run, LIMITS, CPU, rounds=1)
    assert by_key(rows)['', 'forward', name]['flops'] == flops


def test_a_profile_leaves_no_hooks_behind():
    net = Net()
    profile(net, lambda: net(torch.ones(1, 3, 8, 8)), LIMITS, CPU, rounds=1)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    with pytest.raises(ZeroDivisionError):
        profile(net, lambda: 1 / 0, LIMITS, CPU)


def test_limits_of_this_machine_are_numbers():
    limits = measure_limits(CPU, side=16, megabytes=1, rounds=1)
    assert limits.flops > 0 and limits.bytes > 0
