"""Several processes on CPUs equal one: batch norm, its gradients and the weights after some steps."""

import os
import socket
import traceback

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmrotate_plugin.equivariant import ennSyncBN
from mmrotate_plugin.models import ADFResNet, ReResNet
from mmrotate_plugin.models.utils.cpu_distributed import (
    CPUDistributedDataParallel,
    GlooSyncBatchNorm,
    sync_norms_on_cpu,
)
from mmrotate_plugin.testing import relative_error

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')


@pytest.fixture
def two(tmp_path):
    """Run a function of the rank in two forked processes that form a group; returns what they return."""

    def run(function):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            address = f'tcp://127.0.0.1:{free.getsockname()[1]}'
        children = []
        for rank in (0, 1):
            process = os.fork()
            if process == 0:
                status = 1
                try:
                    dist.init_process_group('gloo', init_method=address, rank=rank, world_size=2)
                    torch.save(function(rank), tmp_path / f'{rank}.pt')
                    dist.barrier()
                    status = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(status)
            children.append(process)
        assert [os.waitpid(process, 0)[1] for process in children] == [0, 0]
        return [torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1)]

    return run


def test_layer_equals_one_process_with_all(two):
    torch.manual_seed(0)
    x = 3 + 5 * torch.randn(5, 4, 6, 7, dtype=torch.float64)
    weights = torch.randn_like(x)

    def run(norm, part):
        inputs = x[part].clone().requires_grad_()
        (norm(inputs) * weights[part]).sum().backward()
        return {'grad': inputs.grad, 'd weight': norm.weight.grad, 'd bias': norm.bias.grad, **norm.state_dict()}

    def in_process(rank):
        norm = GlooSyncBatchNorm(4).double()
        return [run(norm, slice(0, 2) if rank == 0 else slice(2, 5)) for _ in range(2)][-1]  # parts of unequal size

    single = nn.BatchNorm2d(4).double()
    expected = [run(single, slice(None)) for _ in range(2)][-1]
    first, second = two(in_process)
    for key in ('running_mean', 'running_var', 'num_batches_tracked'):
        torch.testing.assert_close(first[key], expected[key])
        torch.testing.assert_close(second[key], expected[key])
    torch.testing.assert_close(torch.cat([first['grad'], second['grad']]), expected['grad'])
    for key in ('d weight', 'd bias'):  # a process has the part of its samples
        torch.testing.assert_close(first[key] + second[key], expected[key])


def test_torch_refuses_on_cpus_what_ours_does(two):
    def refused(_):
        net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4))
        try:
            DistributedDataParallel(net)
        except ValueError as error:
            refusal = str(error)
        out = CPUDistributedDataParallel(module=net)(torch.randn(2, 3, 4, 4))
        return refusal, out.shape

    refusal, shape = two(refused)[0]
    assert 'GPU' in refusal and shape == (2, 4, 4, 4)


def test_alone_it_is_batch_norm():
    ours, norm, x = GlooSyncBatchNorm(4), nn.BatchNorm2d(4), torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(ours(x), norm(x))
    torch.testing.assert_close(ours.eval()(x), norm.eval()(x))
    assert ours.state_dict().keys() == nn.SyncBatchNorm(4).state_dict().keys()
    with pytest.raises(ValueError, match='1 dimensions'):
        ours(torch.zeros(4))


def test_torchs_layers_are_replaced_in_place():
    net = nn.Sequential(nn.SyncBatchNorm(4), ennSyncBN(16), nn.BatchNorm2d(4))
    parameters = list(net.parameters())
    assert sync_norms_on_cpu(net) is net
    assert [type(m) for m in (net[0], net[1].norm, net[2])] == [GlooSyncBatchNorm, GlooSyncBatchNorm, nn.BatchNorm2d]
    assert all(a is b for a, b in zip(parameters, net.parameters(), strict=True))


def small(kind, norm):
    options = dict(depth=18, base_channels=8, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,))
    options['norm_cfg'] = dict(type=norm)
    torch.manual_seed(0)
    backbone = ReResNet(group='C4', **options) if kind == 're' else ADFResNet(noise_std=1.0, std=[1, 1, 1], **options)
    backbone.init_weights()
    return nn.ModuleDict({'backbone': backbone, 'head': nn.Conv2d(16, 2, 1)})


class Loss(nn.Module):
    """The mean over the samples, as in a detector whose losses are averaged over all processes."""

    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def forward(self, x):
        return self.parts.head(self.parts.backbone(x)[0]).square().mean()


STEPS = 4


@pytest.mark.parametrize('kind', ['re', 'adf'])
def test_two_processes_learn_what_one_learns_with_twice_the_batch(two, kind):
    images = torch.randn(STEPS, 4, 3, 33, 33, generator=torch.Generator().manual_seed(1))

    def train(model, batches):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for batch in batches:
            optimizer.zero_grad()
            model(batch).backward()
            optimizer.step()
        return {key: value.clone() for key, value in model.state_dict().items()}

    def in_process(norm):
        def run(rank):
            model = Loss(small(kind, norm))
            model = CPUDistributedDataParallel(module=model, broadcast_buffers=False)
            return {k.removeprefix('module.'): v for k, v in train(model, images[:, rank::2]).items()}

        return run

    before = Loss(small(kind, 'BN')).state_dict()
    expected = train(Loss(small(kind, 'BN')), images)
    first, second = two(in_process('SyncBN'))
    moved = 0.0
    for key, value in expected.items():
        assert torch.equal(first[key], second[key]), key
        if value.is_floating_point():
            torch.testing.assert_close(first[key], value, rtol=0, atol=1e-4, msg=key)
            moved = max(moved, float((value - before[key]).abs().max()))
    assert moved > 0.01
    # control: with statistics of each process alone, the result is another
    apart, _ = two(in_process('BN'))
    weight = 'parts.backbone.conv1.weight'
    assert relative_error(apart[weight], expected[weight]) > 10 * relative_error(first[weight], expected[weight])
