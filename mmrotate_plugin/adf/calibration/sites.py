"""Find the modules of a network whose output has a variance, and watch their calls."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..gaussian import Gaussian


class Site(NamedTuple):
    """A module that outputs one Gaussian."""

    name: str
    module: nn.Module
    channels: int


def find_sites(model: nn.Module, image: Tensor, variance: Tensor) -> list[Site]:
    """Find the modules that output one Gaussian, in the order of their calls.

    Left out are modules without parameters that are called several times (a ReLU in many places has no gain of its
    own) and those that pass on the output of their last child.
    """
    names = {module: name for name, module in model.named_modules()}
    calls: dict[nn.Module, int] = {}
    channels: dict[nn.Module, int] = {}
    passed_on: dict[nn.Module, nn.Module] = {}  # a module: the child whose output it returns
    last: tuple[nn.Module, Gaussian] | None = None

    def look(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:  # noqa: ARG001  signature of a hook
        nonlocal last
        if isinstance(out, Gaussian):
            calls[module] = calls.get(module, 0) + 1
            channels[module] = out.shape[channel_dim(module, out)]
            if last is not None and out is last[1]:
                passed_on[module] = last[0]
            last = (module, out)

    with hooks(names, look):
        model(Gaussian(image, variance))
    sites: list[Site] = []
    covered: set[nn.Module | None] = set()  # modules whose output has gains of its own
    for module, count in calls.items():
        if passed_on.get(module) in covered:
            covered.add(module)
        elif count == 1 or next(module.parameters(), None) is not None:
            covered.add(module)
            sites.append(Site(names[module], module, channels[module]))
    if not sites:
        raise ValueError(
            f'no module of {type(model).__name__} outputs a Gaussian when the model is called with one; '
            "an ADFResNet needs output='gaussian' for it"
        )
    return sites


def channel_dim(module: nn.Module, out: Tensor | Gaussian) -> int:
    """Return the channel dimension: the last for layers of vectors, (B, ..., C), otherwise 1, (B, C, ...)."""
    return out.dim() - 1 if isinstance(module, (nn.Linear, nn.LayerNorm)) or out.dim() < 2 else 1


@contextmanager
def hooks(modules: Iterable[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    """Temporarily register a forward hook on each module."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
