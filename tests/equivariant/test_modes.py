"""A layer's first use under any mode or transform of torch must leave all later layers of its kind sound."""

import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, functionalize, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vmap

from mmrotate_plugin.equivariant import _block_conv, ennBN, ennConv, ennGroupPool, ennReLU, ennTrivialConv, fourier
from mmrotate_plugin.equivariant._constants import Constant, is_plain
from mmrotate_plugin.equivariant.basis import steerable_basis
from mmrotate_plugin.equivariant.fourier import circulant_conv, spectrum, transforms
from mmrotate_plugin.testing import randomize_norms_, relative_error

X = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def first_use(monkeypatch):
    """Nothing is kept yet, and narrow layers take the Fourier path too."""
    steerable_basis.cache_clear()
    transforms.cache_clear()
    monkeypatch.setattr('mmrotate_plugin.equivariant.conv.gains', lambda *_, **__: True)
    yield
    steerable_basis.cache_clear()
    transforms.cache_clear()


def small():
    return nn.Sequential(ennTrivialConv(3, 16, 3), ennBN(16), ennReLU(), ennConv(16, 8, 1), ennGroupPool(8))


def ready():
    net = randomize_norms_(small()).eval()
    return net


def assert_sound():
    """New layers give the numbers of an ordinary convolution, with gradients and without, and learn."""
    net = ready()
    with torch.no_grad():
        first, again = net(X), net(X)
    net[3].fourier = False
    expected = net(X)
    assert type(first) is torch.Tensor and torch.equal(first, again)
    assert relative_error(first, expected) < 1e-5
    expected.sum().backward()
    assert all(p.grad is not None and is_plain(p.grad) for p in net.parameters())


def fake():
    with FakeTensorMode():
        net, x = small(), torch.randn(2, 3, 5, 5)
        net(x).sum().backward()
        with torch.no_grad():
            assert net(x).shape == net(x).shape == (2, 1, 3, 3)


def fake_of_a_real_network():
    net = ready()
    with torch.no_grad():
        net(X)  # keeps a real filter
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert net(torch.randn(2, 3, 5, 5)).shape == (2, 1, 3, 3)


def exported():
    net = ready()
    program = torch.export.export(net, (X,))
    assert relative_error(program.module()(X), net(X)) < 1e-5


def inference():
    with torch.inference_mode():
        net = small()
        net(X), net.eval()(X)


def on_meta():
    with torch.device('meta'), torch.no_grad():
        net, x = ready(), torch.randn(2, 3, 5, 5)
        assert net(x).is_meta and net(x).is_meta


def double_by_default():
    torch.set_default_dtype(torch.float64)
    try:
        assert small()(X.double()).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def autocast():
    with torch.autocast('cpu', torch.bfloat16):
        small()(X)
        with torch.no_grad():
            ready()(X)


def no_grad_then_training():
    net = small()
    with torch.no_grad():
        net(X)
    net(X).sum().backward()


def functional():
    net = ready()
    assert relative_error(functionalize(net)(X), net(X)) < 1e-5
    with torch.no_grad():
        functionalize(net)(X)


def gradient():
    net = ready()
    parameters = dict(net.named_parameters())
    found = grad(lambda p: functional_call(net, p, (X,)).square().sum())(parameters)
    net(X).square().sum().backward()
    assert all(relative_error(found[n], p.grad) < 1e-4 for n, p in net.named_parameters())


def forward_derivative():
    net = ready()
    value, derivative = jvp(net, (X,), (X,))
    step = 1e-3
    assert relative_error(value, net(X)) < 1e-5
    net.double()
    difference = (net(X.double() * (1 + step)) - net(X.double() * (1 - step))) / (2 * step)
    assert relative_error(derivative, difference.float()) < 0.05  # a ReLU turns within the step


def traced():
    for context in (torch.enable_grad, torch.no_grad):
        net = ready()
        with context():
            trace = torch.jit.trace(net, X)  # which runs twice, without gradients at the second time
            assert relative_error(trace(2 * X), net(2 * X)) < 1e-5
        torch.jit.trace(net.train(), X, check_trace=False)(X).sum().backward()
        assert net[0].weight.grad is not None


def copied():
    with FakeTensorMode():
        copy.deepcopy(ennConv(16, 8, 1))
    net = ready()
    with torch.no_grad():
        net(X)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(X), net(X))


NEWER = [
    pytest.param(exported, marks=pytest.mark.needs_torch('2.1', 'torch.export')),
    pytest.param(on_meta, marks=pytest.mark.needs_torch('2.1', 'random numbers of a generator on meta')),
]
USES = [fake, fake_of_a_real_network, *NEWER, inference, double_by_default, autocast, no_grad_then_training,
        functional, gradient, forward_derivative, traced, copied]  # fmt: skip


@pytest.mark.filterwarnings('ignore:Accessing the data pointer of FakeTensor', 'ignore::torch.jit.TracerWarning')
@pytest.mark.parametrize('use', USES, ids=lambda use: getattr(use, '__name__', ''))
def test_first_use_leaves_sound_layers(use):
    use()
    assert_sound()


@pytest.mark.needs_torch('2.1', 'torch.compile for Python 3.11')
def test_first_use_of_a_compiled_network():
    torch._dynamo.reset()
    net = ready()
    compiled = torch.compile(net, backend='eager', fullgraph=True)
    assert relative_error(compiled(X), net(X)) < 1e-5
    assert_sound()


def test_a_cache_that_takes_fake_tensors_fails_that_check(monkeypatch):
    def like(self, x):
        if not hasattr(self, 'kept'):
            self.kept = self.tensor().to(x)
        return self.kept

    monkeypatch.setattr(Constant, 'like', like)
    fake()
    with pytest.raises(Exception, match='(?i)fake'):
        assert_sound()


def test_kept_constants_are_plain_and_one_for_all():
    constant = steerable_basis('C8', 3).kernels
    x = torch.zeros(1)
    with FakeTensorMode() as mode:
        assert constant.like(torch.zeros(1)) is not constant.like(torch.zeros(1))
        assert constant.like(mode.from_tensor(x)).shape == constant.values.shape
    grad(lambda t: constant.like(t).sum() * t)(torch.tensor(1.0))
    assert not constant._copies
    with torch.inference_mode():
        assert not constant.like(x).is_inference()
    assert constant.like(x) is constant.like(nn.Parameter(x)) and constant.like(x) is not constant.like(x.double())


def test_two_threads_at_once():
    failures = []

    def run(group):
        try:
            net = nn.Sequential(ennTrivialConv(3, 16, 3, group=group), ennConv(16, 16, 3, group=group))
            with torch.no_grad():
                assert torch.equal(net(X), net(X))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(group,)) for group in ('D4', 'C8', 'D4', 'C8')]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failures


def test_one_thread_learns_while_another_predicts():
    layer = ennConv(16, 16, 3)
    x = torch.randn(1, 16, 5, 5)
    with torch.no_grad():
        expected = layer(x)
        keep, layer._kept = layer._kept, {}

        class Forgetful(dict):  # another thread forgets the filter between a look and a read
            def get(self, name):
                layer._kept = {}
                return keep.get(name)

        layer._kept = Forgetful()
        assert torch.equal(layer(x), expected)


def test_replicas_keep_their_own_filters():
    layer = ennConv(16, 16, 3)
    x = torch.randn(1, 16, 5, 5)
    replica = layer._replicate_for_data_parallel()
    replica._parameters = {'weight': nn.Parameter(2 * layer.weight.detach()), 'bias': layer.bias}
    replica.weight = replica._parameters['weight']
    with torch.no_grad():
        ours = layer(x)
        assert relative_error(replica(x), 2 * ours) < 1e-6
        assert torch.equal(layer(x), ours) and layer._kept is not replica._kept


@pytest.mark.parametrize('no_grad', [True, False])
def test_vmap_over_images_and_over_networks(no_grad):
    nets = [ready() for _ in range(3)]
    with torch.set_grad_enabled(not no_grad):
        one = vmap(lambda image: nets[0](image[None])[0])(X)
        assert relative_error(one, nets[0](X)) < 1e-5
        parameters, buffers = stack_module_state(nets)
        each = vmap(lambda p, b: functional_call(nets[0], (p, b), (X,)))(parameters, buffers)
        assert relative_error(each, torch.stack([net(X) for net in nets])) < 1e-5
        own = vmap(lambda p, b, x: functional_call(nets[0], (p, b), (x,)))(parameters, buffers, torch.stack([X] * 3))
        assert relative_error(own, each) < 1e-6


def test_gradients_of_each_sample():
    net = ready()
    parameters = dict(net.named_parameters())

    def loss(p, image):
        return functional_call(net, p, (image[None],)).square().sum()

    found = vmap(grad(loss), (None, 0))(parameters, X)
    for i in range(len(X)):
        net.zero_grad()
        net(X[i : i + 1]).square().sum().backward()
        for name, parameter in net.named_parameters():
            assert relative_error(found[name][i], parameter.grad) < 1e-4


@pytest.mark.parametrize('n', [3, 4])
def test_jacobians_and_hessians_of_the_fourier_path(n):
    x = torch.randn(1, 2 * n, 1, 2, dtype=torch.float64)
    columns, bias = torch.randn(1, 2, n, dtype=torch.float64), torch.randn(1, dtype=torch.float64)

    def run(x, columns, bias):
        return circulant_conv(x, *spectrum(columns), bias)

    arguments = x, columns, bias
    expected = torch.autograd.functional.jacobian(run, arguments)
    for jacobian in (jacrev, jacfwd):
        for found, right in zip(jacobian(run, (0, 1, 2))(*arguments), expected, strict=True):
            assert relative_error(found, right) < 1e-12

    def loss(columns):
        return run(x, columns, bias).pow(3).sum()

    assert relative_error(hessian(loss)(columns), torch.autograd.functional.hessian(loss, columns)) < 1e-12
    assert _block_conv._BlockConv.generate_vmap_rule


@pytest.mark.filterwarnings('ignore:There is a performance drop')
def test_writing_in_place_fails_under_vmap(monkeypatch):
    monkeypatch.setattr(fourier, 'is_transformed', lambda _: False)
    own, cross = spectrum(torch.randn(1, 1, 4))
    x = torch.randn(1, 4, 1, 1)
    with pytest.raises(RuntimeError, match='vmap'):
        vmap(lambda c: circulant_conv(x, own, c))(torch.stack([cross, cross]))
