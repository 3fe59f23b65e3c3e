"""Modules that are fitted already are not computed again in each pass, and the gains are as if they were."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.adf.calibration import calibrate
from mmrotate_plugin.adf.calibration.replay import Replay
from mmrotate_plugin.adf.calibration.sites import Site
from mmrotate_plugin.adf.gains import GAIN


class Detector(nn.Module):
    """A body that gives two levels, and a head of five layers on both."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1))
        self.head = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(5))

    def forward(self, x):
        x = self.body(x)
        outs = []
        for level in (x, x[..., ::2, ::2]):
            for conv in self.head:
                level = conv(level).relu_()
            outs.append(level)
        return outs


def gains(net):
    return {name: value for name, value in net.named_buffers() if name.endswith(GAIN)}


def fitted(net):
    calls = []
    net.body[0].register_forward_hook(lambda *args: calls.append(isinstance(args[2], Gaussian)))
    images = torch.randn(3, 1, 17, 17, generator=torch.Generator().manual_seed(1))
    report = calibrate(net, images, 0.1, num_samples=32, progress=False)
    return gains(net), report, sum(calls)


def test_gains_are_those_of_whole_passes(monkeypatch):
    mine, report, passes = fitted(Detector())
    monkeypatch.setattr(Replay, 'one_pass', lambda *_: nullcontext())
    whole, expected, more = fitted(Detector())
    assert len(mine) > 3 and mine.keys() == whole.keys()
    assert all(torch.equal(mine[name], whole[name]) for name in mine)
    assert report.as_dict() == expected.as_dict()
    # one to find the sites, one each for the ratios before and after, and the first two of the five of the fit
    assert passes == 5 and more == 8


def one_pass(replay, net, x, waiting):
    with torch.no_grad(), replay.one_pass([Site(name, net.get_submodule(name), 1) for name in waiting]):
        return net(x)


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.second(self.first(self.second(self.first(x))))


@pytest.mark.parametrize('kind, kept', [(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), True), (Loop(), False)])
def test_what_depends_on_a_waiting_module_is_computed_again(kind, kept):
    first, second = (name for name, module in kind.named_modules() if isinstance(module, nn.Linear))
    replay = Replay(kind, [Site(name, kind.get_submodule(name), 1) for name in (first, second)])
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    before = one_pass(replay, kind, x, [second])
    with torch.no_grad():
        kind.get_submodule(second).weight.mul_(2)  # as a gain would
        expected = kind(x)
        out = one_pass(replay, kind, x, [second])
    assert (kind.get_submodule(first) in replay.recorded) is kept
    assert torch.equal(out, expected) and not torch.equal(out, before)
    assert 'forward' not in vars(kind.get_submodule(first))
    # negative control: what is recorded really is used
    with torch.no_grad():
        kind.get_submodule(first).weight.zero_()
    assert torch.equal(one_pass(replay, kind, x, [second]), out) is kept


def test_a_forward_of_its_own_is_put_back_after_an_error():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    own = net[0].forward = lambda x: x
    with pytest.raises(RuntimeError), Replay(net, [Site('0', net[0], 2)]).one_pass([]):
        raise RuntimeError
    assert net[0].forward is own
