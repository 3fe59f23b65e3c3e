"""Switch the Fourier path of equivariant layers off."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from ...equivariant import ennConv, ennTrivialConv
from ...utils.contexts import temporary_attributes


@contextmanager
def without_fourier(model: nn.Module) -> Iterator[None]:
    """Temporarily compute the equivariant layers of a model by convolutions, also where a CPU would go by Fourier."""
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, (ennConv, ennTrivialConv)):
                stack.enter_context(temporary_attributes(module, fourier=False))
        yield
