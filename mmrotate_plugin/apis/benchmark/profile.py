"""Time each operation of a run, by the layer that calls it, in the forward and in the backward pass."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from .roofline import Limits, cost
from .timing import clock

Key = tuple[str, str, str]  # layer, phase, operation
Row = dict[str, Any]
PHASES = ('forward', 'backward', 'update')


class _Layers:
    """Follow which layer runs: by hooks of modules, and by hooks of the graph that their outputs came from."""

    def __init__(self) -> None:
        self.stack: list[str] = []
        self.place = 'forward', ''
        self.nodes: set[Any] = set()

    @contextmanager
    def watching(self, net: nn.Module) -> Iterator[None]:
        """Put the hooks on a network, and take them off again."""
        hooks: list[Any] = []
        for name, module in net.named_modules():
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self._enter(name)))
            hooks.append(module.register_forward_hook(lambda _m, _i, out, name=name: self._leave(name, out)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def restart(self) -> None:
        """Start a run outside of any layer."""
        self.stack, self.place, self.nodes = [], ('forward', ''), set()

    def _enter(self, name: str) -> None:
        self.stack.append(name)
        self.place = 'forward', name

    def _leave(self, name: str, out: Any) -> None:
        self.stack.pop()
        self.place = 'forward', self.stack[-1] if self.stack else ''
        found = [x.grad_fn for x in tree_flatten(out)[0] if isinstance(x, Tensor)]
        while found:
            node = found.pop()
            if node is None or node in self.nodes:  # a layer within this one has it
                continue
            self.nodes.add(node)
            node.register_prehook(lambda *_, name=name: self._backward(name))
            found += [following for following, _ in node.next_functions]

    def _backward(self, name: str) -> None:
        self.place = 'backward', name

    def updates(self) -> None:
        """Say that the optimizer updates the weights from now on."""
        self.place = 'update', ''


class _Clock(TorchDispatchMode):
    """Time every operation, and count what it costs."""

    def __init__(self, layers: _Layers, device: torch.device) -> None:
        super().__init__()
        self.layers, self.device = layers, device
        self.calls: dict[Key, list[tuple[float, int, int]]] = defaultdict(list)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found: list[Any] = []
        phase, layer = self.layers.place
        seconds = clock(lambda: found.append(func(*args, **kwargs)), self.device)
        self.calls[layer, phase, func.overloadpacket.__name__].append((seconds, *cost(func, args, kwargs, found[0])))
        return found[0]


def profile(
    net: nn.Module,
    run: Callable[[], object],
    limits: Limits,
    device: torch.device,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    rounds: int = 3,
) -> tuple[list[Row], float]:
    """Profile a run of a network.

    Args:
        net: The network, whose modules are the layers.
        run: Runs it once: a forward pass, or a training step.
        limits: Of the machine.
        device: Where it runs.
        optimizer: The one that the run steps, so that updates are told from the backward pass.
        rounds: Runs; times are medians over them.

    Returns:
        One row for each layer, phase and operation, the longest first: 'layer', 'phase' (one of `PHASES`), 'operation',
        'calls' per run, 'seconds', 'flops', 'bytes', 'least' (seconds, by the limits) and 'bound' ('arithmetic' or
        'memory'). Then the seconds of a whole run that nothing watches.
    """
    run()  # builds what is kept
    whole = statistics.median(clock(run, device) for _ in range(rounds))
    layers = _Layers()
    each: list[dict[Key, list[tuple[float, int, int]]]] = []
    updating = optimizer.register_step_pre_hook(lambda *_: layers.updates()) if optimizer is not None else None
    try:
        with layers.watching(net):
            for _ in range(rounds):
                layers.restart()
                with _Clock(layers, device) as watch:
                    run()
                each.append(watch.calls)
    finally:
        layers.restart()
        if updating is not None:
            updating.remove()
    return _rows(each, limits), whole


def _rows(each: list[dict[Key, list[tuple[float, int, int]]]], limits: Limits) -> list[Row]:
    rows = []
    for key in dict.fromkeys(key for calls in each for key in calls):
        seconds = statistics.median(sum(call[0] for call in calls.get(key, ())) for calls in each)
        last = next(calls[key] for calls in reversed(each) if key in calls)
        flops, moved = (sum(call[i] for call in last) for i in (1, 2))
        rows.append(
            {
                **dict(zip(('layer', 'phase', 'operation'), key, strict=True)),
                'calls': len(last),
                'seconds': seconds,
                'flops': flops,
                'bytes': moved,
                **bound(flops, moved, limits),
            }
        )
    return sorted(rows, key=lambda row: -row['seconds'])


def bound(flops: float, moved: float, limits: Limits) -> Row:
    """Return the least seconds for so much work, and what bounds them."""
    arithmetic, memory = flops / limits.flops, moved / limits.bytes
    return {'least': max(arithmetic, memory), 'bound': 'arithmetic' if arithmetic > memory else 'memory'}


def grouped(rows: list[Row], limits: Limits, *names: str) -> list[Row]:
    """Add up the rows that agree in some of 'layer', 'phase' and 'operation', the longest first."""
    sums: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = tuple(row[name] for name in names)
        total = sums.setdefault(
            key,
            {**dict(zip(names, key, strict=True)), **dict.fromkeys(('calls', 'seconds', 'flops', 'bytes', 'least'), 0)},
        )
        for name in ('calls', 'seconds', 'flops', 'bytes', 'least'):
            total[name] += row[name]
    found = [{**row, 'bound': bound(row['flops'], row['bytes'], limits)['bound']} for row in sums.values()]
    return sorted(found, key=lambda row: -row['seconds'])
