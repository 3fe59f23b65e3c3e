"""Act with group elements on images and feature maps.

The quarter turns in the group and, for D_N, their reflections are exact: they map the pixel grid onto itself. Under
other angles, grid and filters are sampled anew, so even a map that commutes with all rotations of the plane has a small
error.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..equivariant.fields import parse_group


def turn(x: Tensor, quarter_turns: int, flip: bool = False) -> Tensor:
    """Turn a map (..., H, W) counter-clockwise about its centre, after a left-right reflection if `flip`."""
    return (x.flip(-1) if flip else x).rot90(quarter_turns, (-2, -1))


def act_on_regular(x: Tensor, group: str, quarter_turns: int, flip: bool = False) -> Tensor:
    """Act on regular fields: turn (and reflect) the grid, and permute the orientation channels accordingly.

    Args:
        x: (B, fields * ``|G|``, H, W), orientation fastest.
        group: Fiber group; its number of rotations must be a multiple of 4, or of 2 for half turns.
        quarter_turns: Number of quarter turns, counter-clockwise.
        flip: Whether to reflect left-right first; for groups D_N.

    Returns:
        (B, fields * ``|G|``, H', W').

    Raises:
        ValueError: If the element is not in the group.
    """
    check_element(group, quarter_turns, flip)
    return turn(_permute(x, group, quarter_turns * int(group[1:]) // 4, flip), quarter_turns, flip)


def check_element(group: str, quarter_turns: int, flip: bool) -> None:
    """Raise a ValueError if the element is not in the group."""
    parse_group(group)
    rotations = int(group[1:])
    if quarter_turns * rotations % 4:
        raise ValueError(
            f"group '{group}' has no turn by {90 * quarter_turns % 360} degrees: its turns are multiples of "
            f'{360 / rotations:g} degrees. Quarter turns need a group such as C4 or C8, half turns an even number'
        )
    if flip and group[0] != 'D':
        raise ValueError(f"group '{group}' has no reflections: use 'D{rotations}'")


def _permute(x: Tensor, group: str, steps: int, flip: bool) -> Tensor:
    """Permute the orientation channels of (B, fields * |G|, H, W): reflect if `flip`, then rotate by `steps`."""
    fiber = parse_group(group).fibergroup
    steps %= int(group[1:])
    element = (int(flip), steps) if group[0] == 'D' else steps
    permutation = torch.as_tensor(fiber.representations['regular'](element), dtype=torch.float64).argmax(1)
    b, c, h, w = x.shape
    return x.reshape(b, c // fiber.order(), fiber.order(), h, w)[:, :, permutation.to(x.device)].reshape(b, c, h, w)


def rotate(x: Tensor, degrees: float) -> Tensor:
    """Rotate a map counter-clockwise about its centre.

    Args:
        x: (B, C, H, W).
        degrees: Angle. Multiples of 90 move pixels and are exact; other angles interpolate linearly, with zeros outside
            of the map. (torch's cubic kernel, with a = -0.75, does not even preserve straight lines.)

    Returns:
        (B, C, H, W); (B, C, W, H) for odd multiples of 90 degrees.
    """
    quarter_turns, rest = divmod(degrees, 90)
    if rest == 0:
        return x.rot90(int(quarter_turns) % 4, (-2, -1))
    (h, w), angle = x.shape[-2:], math.radians(degrees)
    rows = torch.arange(h, dtype=x.dtype, device=x.device)[:, None] - (h - 1) / 2
    columns = torch.arange(w, dtype=x.dtype, device=x.device) - (w - 1) / 2
    # where each pixel comes from; rows count downwards
    from_x = math.cos(angle) * columns - math.sin(angle) * rows
    from_y = math.sin(angle) * columns + math.cos(angle) * rows
    grid = torch.stack((from_x * 2 / max(w - 1, 1), from_y * 2 / max(h - 1, 1)), dim=-1)  # (H, W, 2)
    return F.grid_sample(x, grid.expand(len(x), h, w, 2), mode='bilinear', padding_mode='zeros', align_corners=True)


def act(x: Tensor, group: str | None, degrees: float, flip: bool = False) -> Tensor:
    """Act on regular fields by any angle: rotate (and first reflect) the grid, permute the orientation channels.

    Between the angles of the group, the channels of its two nearest rotations are interpolated linearly. This is a
    convention, not a law.

    Args:
        x: (B, fields * ``|G|``, H, W), orientation fastest.
        group: Fiber group; None for trivial fields, whose grid alone turns.
        degrees: Angle, counter-clockwise.
        flip: Whether to reflect left-right first; for groups D_N, or None.

    Returns:
        A map of the size that `rotate` gives.

    Raises:
        ValueError: For a reflection if the group has none.
    """
    if group is not None:
        if flip and group[0] != 'D':
            raise ValueError(f"group '{group}' has no reflections: use 'D{group[1:]}'")
        steps = degrees * int(group[1:]) / 360
        below = math.floor(steps + 1e-6)
        part = steps - below
        turned = _permute(x, group, below, flip)
        x = turned if part < 1e-6 else torch.lerp(turned, _permute(x, group, below + 1, flip), part)
    return rotate(x.flip(-1) if flip else x, degrees)


def act_on_irreps(x: Tensor, frequencies: Sequence[int], degrees: float, flip: bool = False) -> Tensor:
    """Act on irreducible fields, as `ennIrrepConv` returns them: rotate the grid, and turn the pairs of channels.

    A pair of frequency k is (cos ka, sin ka) times a length, where a is clockwise as seen (y points down): a vector
    (dx, dy) for 1, the director of a box for 2. Turning the image counter-clockwise takes a to a - `degrees`; the
    left-right reflection takes it to 180 degrees - a.

    Args:
        x: (B, C, H, W), the fields in the order of `frequencies`.
        frequencies: 0 for a field of one channel, k for one of two.
        degrees: Angle, counter-clockwise; exact for multiples of 90, see `rotate`.
        flip: Whether to reflect left-right first.

    Returns:
        A map of the size that `rotate` gives.

    Raises:
        ValueError: If the frequencies do not add up to the channels.
    """
    sizes = [1 if k == 0 else 2 for k in frequencies]
    if sum(sizes) != x.shape[1]:
        raise ValueError(f'frequencies={tuple(frequencies)} make {sum(sizes)} channels, but x has {x.shape[1]}')
    out = []
    for k, field in zip(frequencies, x.split(sizes, 1), strict=True):
        if k:
            cos, sin = field.unbind(1)
            if flip:
                cos, sin = (-cos, sin) if k % 2 else (cos, -sin)
            steps, rest = divmod(k * degrees, 90)  # exact at quarter turns
            c, s = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(steps) % 4]
            a = math.radians(rest)
            c, s = c * math.cos(a) - s * math.sin(a), s * math.cos(a) + c * math.sin(a)
            field = torch.stack([c * cos + s * sin, c * sin - s * cos], 1)
        out.append(field)
    return rotate(torch.cat(out, 1).flip(-1) if flip else torch.cat(out, 1), degrees)


def exact_elements(group: str) -> tuple[tuple[int, bool], ...]:
    """List the elements of a group that map the pixel grid onto itself, as (quarter turns, reflected).

    The identity is left out.

    'C4' and 'C8' have three, 'C6' one (the half turn), 'C3' none; 'D4' has seven.
    """
    parse_group(group)
    rotations = int(group[1:])
    flips = (False, True) if group[0] == 'D' else (False,)
    elements = [(k, flip) for flip in flips for k in range(4) if k * rotations % 4 == 0]
    return tuple(element for element in elements if element != (0, False))
