"""Check that networks compute what they claim to, before they are compared by cost."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...adf import Gaussian
from ...equivariant.fourier import FourierConv2d
from ...testing import randomize_norms_, relative_error
from ...utils.errors import CheckFailed, UsageError
from .contestants import Contestant

TOLERANCE = 1e-5  # relative error, float32, of maps that are claimed to be the same


class UnlikeError(CheckFailed):
    """Networks that cannot be compared; one line for each reason."""


def maps(net: Callable[[Tensor], Any], x: Tensor, *, variances: bool = False) -> list[Tensor]:
    """Return the maps of the stages, (B, C_i, H_i, W_i) each: values of e2cnn's tensors, means of Gaussians.

    With `variances`, those of Gaussians follow.
    """
    found = net(x)
    each: tuple[Any, ...] = (found,) if isinstance(found, Tensor) else tuple(found)
    gaussian = [y.v for y in each if isinstance(y, Gaussian)] if variances else []
    return [y.mu if isinstance(y, Gaussian) else getattr(y, 'tensor', y) for y in each] + gaussian


def loss_of(found: Iterable[Tensor]) -> Tensor:
    """Return a scalar that depends on every map."""
    return torch.stack([y.square().mean() for y in found]).sum()


def outcome(net: nn.Module, x: Tensor, training: bool) -> list[Tensor]:
    """Return the maps; in training mode, also the gradients of all parameters, as one vector."""
    net.train(training)
    with torch.set_grad_enabled(training):
        found = maps(net, x)
    if training:
        loss_of(found).backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
        net.zero_grad()
    return [y.detach() for y in found]


def prepare(
    contestants: Sequence[Contestant], x: Tensor, say: Callable[[str], None]
) -> tuple[dict[str, nn.Module], dict[str, float]]:
    """Build what is timed, with random norms, and compare what is claimed to be equal.

    Args:
        contestants: The first one decides on the shapes.
        x: (B, 3, H, W) on the device to use.
        say: Gets a line for each claim.

    Returns:
        The networks, and the largest relative error of each claim.

    Raises:
        UsageError: If a network refuses the options.
        UnlikeError: If maps that should be equal are not, or the maps of a network have other shapes than the first's.
    """
    nets: dict[str, nn.Module] = {}
    errors: dict[str, float] = {}
    shapes: dict[str, list[tuple[int, ...]]] = {}
    wrong = []
    for c in contestants:
        try:
            net = randomize_norms_(c.build()).to(x.device)  # identity norms would hide a wrong one
            nets[c.name] = c.convert(net) if c.convert else net
        except ValueError as error:
            raise UsageError(f'{c.name}: {error}') from error
        if c.name.startswith('fourier') and not any(isinstance(m, FourierConv2d) for m in nets[c.name].modules()):
            say(f'{c.name}: no layer of this width gains by a Fourier transform, so this is exported-{c.same}')
        shapes[c.name] = [tuple(y.shape[1:]) for y in outcome(nets[c.name], x, training=False)]
        if c.twin is None:
            continue
        found = _differences(c, nets[c.name], c.twin(net), x)
        errors[c.name] = float(np.max(found))  # NaN, if there is one
        text = ', '.join(f'{error:.1e}' for error in found)
        say(f'{c.name} = {c.same}: relative errors of its {"maps and gradients" if c.recomputes else "maps"} {text}')
        if not errors[c.name] < TOLERANCE:
            wrong.append(
                f'{c.name} is claimed to be equal to {c.same}, but the relative errors of its maps are {text}; '
                f'at most {TOLERANCE:g} would pass'
            )
    first = contestants[0].name
    wrong += [
        f'{name} returns maps of (C, H, W) = {shape}, {first} of {shapes[first]}'
        for name, shape in shapes.items()
        if shape != shapes[first]
    ]
    if wrong:
        raise UnlikeError(*(f'not alike: {text}' for text in wrong))
    return nets, errors


def _differences(contestant: Contestant, net: nn.Module, twin: nn.Module, x: Tensor) -> list[float]:
    """Return the relative error of each map of a network, infinite if shapes differ."""
    ours, theirs = (outcome(each, x, training=contestant.recomputes) for each in (net, twin))
    if [y.shape for y in ours] != [y.shape for y in theirs]:
        return [float('inf')]
    return [relative_error(a, b) for a, b in zip(ours, theirs, strict=True)]
