"""What makes a network of fields equivariant between quarter turns too, under one name: the preset `any_angle`."""

from typing import Any, NamedTuple

from .layers import Cfg

FREQUENCIES_CUTOFF = 2.0  # angular frequencies that a 3 x 3 kernel holds
STRIDE_BLUR = 1.0  # standard deviation of the Gaussian before a stride, in pixels before it
ACT_BLUR = 0.5  # standard deviation of the Gaussian behind an activation, in pixels


class Switches(NamedTuple):
    """The parts of the preset, each of which an argument of `ReResNet` and `ReFPN` switches on alone.

    Attributes:
        conv_cfg: Options of the convolutions.
        act_cfg: The activation.
        antialiased: Whether strides blur before they leave pixels out.
        act_blur: Standard deviation of the blur behind activations, in pixels; 0 for none.
    """

    conv_cfg: Cfg | None
    act_cfg: Cfg
    antialiased: bool
    act_blur: float


def resolve(
    any_angle: bool,
    conv_cfg: Cfg | None = None,
    act_cfg: Cfg | None = None,
    antialiased: bool | None = None,
    act_blur: float | None = None,
    *,
    usual_act: Cfg,
) -> Switches:
    """Fill in what is None: by the preset with `any_angle`, by what ReDet has without.

    Args:
        any_angle: Whether the preset is on.
        conv_cfg, act_cfg, antialiased, act_blur: What the caller was given; None for nothing.
        usual_act: The activation without the preset.

    Raises:
        ValueError: If `act_blur` is negative, or the preset contradicts what is given.
    """
    if act_blur is not None and not 0 <= act_blur < float('inf'):
        raise ValueError(f'act_blur={act_blur} must be a finite number of pixels, 0 (none) or more, such as {ACT_BLUR}')
    if not any_angle:
        act = usual_act if act_cfg is None else act_cfg
        return Switches(conv_cfg, act, bool(antialiased), 0.0 if act_blur is None else act_blur)
    conv = {'frequencies_cutoff': FREQUENCIES_CUTOFF, 'maximum_offset': 0}
    _agree('conv_cfg', conv, conv_cfg or {})
    act = {'type': 'ennFourierReLU'}
    _agree('act_cfg', act, {} if act_cfg is None else {**act_cfg, 'type': str(act_cfg.get('type')).rpartition('.')[2]})
    for name, value, own in (('antialiased', antialiased, True), ('act_blur', act_blur, ACT_BLUR)):
        _agree('', {name: own}, {} if value is None else {name: value})
    return Switches({**(conv_cfg or {}), **conv}, {**act, **(act_cfg or {})}, True, ACT_BLUR)


def _agree(place: str, preset: dict[str, Any], given: dict[str, Any]) -> None:
    for name, own in preset.items():
        if name in given and given[name] != own:
            where = f'{place} has {name}={given[name]!r}' if place else f'{name}={given[name]!r}'
            raise ValueError(
                f'any_angle=True sets {name}={own!r}, but {where}: leave it out, or leave any_angle out and switch on '
                'its parts one by one (conv_cfg, act_cfg, antialiased, act_blur)'
            )
