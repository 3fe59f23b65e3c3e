"""Networks that take part in a benchmark, by their names on the command line."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from torch import nn

from ... import equivariant
from ...adf.gaussian import VARIANCE_RULES
from ...models import ReResNet
from ...registry import MODELS
from ...utils.errors import UsageError

MEASURES = ('build', 'train', 'eval', 'memory', 'checkpoint')
KNOWN = (
    "'plain' (mmdet's ResNet), 'folded' (it, exported), a group such as 'C8' or 'D4' (ReResNet), 'exported-C8', "
    "'fourier-C8', 'adf', 'adf-bfloat16', 'adf-rank1' and 'adf-delta' (ADFResNet), 'mmrotate' (its own ReResNet); "
    "'plain+cp' and 'C8+cp' recompute their maps"
)

Build = Callable[..., nn.Module]
Convert = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True)
class Contestant:
    """A network that takes part.

    Attributes:
        name: As on the command line.
        build: Makes it, initialised by its constructor alone.
        convert: Makes what is timed from it, for inference only; None if it is timed as it is.
        twin: Makes a network from it that must give the same maps, by the claim `same`; None without such a claim.
        same: What the twin is.
        recomputes: It computes its maps twice in training, to save memory; the claim is about maps and gradients.
    """

    name: str
    build: Callable[[], nn.Module]
    convert: Convert | None = None
    twin: Convert | None = None
    same: str = ''
    recomputes: bool = False

    @property
    def measures(self) -> tuple[str, ...]:
        """The `MEASURES` that make sense for it."""
        return ('train', 'memory') if self.recomputes else ('eval', 'checkpoint') if self.convert else MEASURES


class Missing(Exception):
    """A network that cannot take part here; the message says why."""


def find(name: str, depth: int, base_channels: int) -> Contestant | str:
    """Return the network of that name, or why it has to be left out.

    Raises:
        UsageError: If there is no such name.
    """
    for pattern, make in NETWORKS:
        found = re.fullmatch(pattern, name)
        if found is not None:
            try:
                return make(found, {'depth': depth, 'base_channels': base_channels})
            except Missing as error:
                return str(error)
    raise UsageError(f"--networks: '{name}' is unknown; known are {KNOWN}")


def same_weights(build: Build, net: nn.Module) -> nn.Module:
    """Make a network with `build` that has the weights of `net`."""
    twin = build().to(next(net.parameters()).device)
    twin.load_state_dict(net.state_dict())
    return twin


def _plain(name: re.Match[str], options: dict[str, Any]) -> Contestant:
    return _timed_as_it_is(name, partial(_host('mmdet', 'resnet').ResNet, norm_eval=False, **options))


def _folded(name: re.Match[str], options: dict[str, Any]) -> Contestant:
    build = partial(_host('mmdet', 'resnet').ResNet, norm_eval=False, **options)
    return Contestant(name[0], build, partial(equivariant.export, fourier=False), twin=lambda net: net, same='plain')


def _group(name: re.Match[str], options: dict[str, Any]) -> Contestant:
    return _timed_as_it_is(name, partial(_ours('ReResNet'), group=name['group'], **options))


def _exported(name: re.Match[str], options: dict[str, Any]) -> Contestant:
    build = partial(_ours('ReResNet'), group=name['group'], **options)
    convert = partial(equivariant.export, fourier=name['how'] == 'fourier')
    return Contestant(name[0], build, convert, twin=lambda net: net, same=name['group'])


def _propagating(name: re.Match[str], options: dict[str, Any]) -> Contestant:
    variance = name['variance'] or 'diagonal'
    return Contestant(name[0], partial(_ours('ADFResNet'), output='gaussian', variance=variance, **options))


def _of_mmrotate(name: re.Match[str], options: dict[str, Any]) -> Contestant:
    own = _host('mmrotate', 're_resnet').ReResNet
    build = partial(own, stem_channels=options['base_channels'], out_indices=(0, 1, 2, 3), **options)
    ours = partial(ReResNet, group='C8', **options)
    return Contestant(name[0], build, twin=partial(same_weights, ours), same='C8 with its weights')


def _timed_as_it_is(name: re.Match[str], build: Build) -> Contestant:
    """Take a network for training and inference; with '+cp' it recomputes its maps."""
    if not name['again']:
        return Contestant(name[0], build)
    twin = partial(same_weights, build)
    return Contestant(name[0], partial(build, with_cp=True), twin=twin, same=name['kind'], recomputes=True)


def _host(host: str, module: str) -> Any:
    """Import a module with backbones of a host.

    Raises:
        Missing: If the host is not installed.
    """
    try:
        return import_module(f'{host}.models.backbones.{module}')
    except ModuleNotFoundError as error:
        if error.name != host:
            raise
        raise Missing(f'{host} is not installed') from error


def _ours(name: str) -> Build:
    model: Build | None = MODELS.get(name)
    if model is None:
        raise Missing(f'there is no {name} in this version')
    return model


NETWORKS: tuple[tuple[str, Callable[[re.Match[str], dict[str, Any]], Contestant]], ...] = (
    (r'(?P<kind>plain)(?P<again>\+cp)?', _plain),
    (r'folded', _folded),
    (r'(?P<kind>(?P<group>[CD]\d+))(?P<again>\+cp)?', _group),
    (r'(?P<how>exported|fourier)-(?P<group>[CD]\d+)', _exported),
    (rf'adf(-(?P<variance>{"|".join(VARIANCE_RULES[1:])}))?', _propagating),
    (r'mmrotate', _of_mmrotate),
)
