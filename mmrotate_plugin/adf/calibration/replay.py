"""Leave out what a pass would compute again: the modules in front of the first one that is still to be fitted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from ..gaussian import Gaussian
from .sites import Site


class Replay:
    """Record the outputs of modules in one pass over the same inputs, and give them in the passes after it.

    A module is recorded if its sites and those in front of it have their gains, so its output cannot change any more:
    all of its calls end before the first call of a site that waits. For a detector these are backbone and neck, while
    the convolutions of a head wait, which are fitted one in each pass.

    Args:
        model: The network.
        sites: All of its sites.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site]) -> None:
        self.model = model
        self.sites = [site.module for site in sites]
        self.recorded: dict[nn.Module, list[Any]] = {}

    @contextmanager
    def one_pass(self, waiting: Sequence[Site]) -> Iterator[None]:
        """Run one pass of the model within this; `waiting` are the sites whose gains are not known before it."""
        late = [site.module for site in waiting]
        new: dict[nn.Module, list[Any]] = {}
        started = False

        def start(*_: Any) -> None:
            nonlocal started
            started = True

        def recording(module: nn.Module) -> Callable[..., Any]:
            forward = module.forward

            def call(*args: Any, **kwargs: Any) -> Any:
                early, out = not started, forward(*args, **kwargs)
                if early:
                    new[module].append(_copy(out))
                else:
                    new.pop(module, None)
                return out

            return call

        with ExitStack() as stack:
            for module in late:
                handle = module.register_forward_pre_hook(start)
                stack.callback(handle.remove)
            for module in self._settled(set(late)):
                if module in self.recorded:
                    function = _replaying(self.recorded[module])
                else:
                    new[module], function = [], recording(module)
                stack.enter_context(_forward(module, function))
            yield
        self.recorded.update((module, outputs) for module, outputs in new.items() if outputs)

    def _settled(self, late: set[nn.Module]) -> list[nn.Module]:
        """Return the largest modules that have sites, none of which waits."""
        sites, found = set(self.sites), []

        def visit(module: nn.Module) -> None:
            inside = set(module.modules())
            if not inside & sites:
                return
            if inside & late:
                for child in module.children():
                    visit(child)
            elif module not in found:
                found.append(module)

        visit(self.model)
        return found


def _replaying(outputs: Sequence[Any]) -> Callable[..., Any]:
    left = iter(outputs)
    return lambda *_, **__: _copy(next(left))


@contextmanager
def _forward(module: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """Temporarily compute the output of a module by another function; its hooks, and so its gains, act as ever."""
    own = vars(module).get('forward')
    module.forward = function
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def _copy(out: Any) -> Any:
    """Copy what a module returns, as what follows may work in place."""
    if isinstance(out, Gaussian):
        return out.replace(out.mu.clone(), out.v.clone())
    if isinstance(out, Tensor):
        return out.clone()
    if isinstance(out, dict):
        return {key: _copy(part) for key, part in out.items()}
    if isinstance(out, (list, tuple)):
        parts = [_copy(part) for part in out]
        return type(out)(*parts) if hasattr(out, '_fields') else type(out)(parts)
    return out
