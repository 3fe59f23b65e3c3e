"""Read and describe the basis of an equivariant convolution: order and names of its elements, its coefficients."""

from collections import Counter

import torch
from torch import Tensor

from ...equivariant import ennConv, ennTrivialConv, group_order, parse_group
from ...equivariant.basis import SteerableBasis


def reading_order(basis: SteerableBasis) -> list[int]:
    """Sort the indices of the elements by ring, then by the size of the angular frequency."""
    return sorted(range(len(basis.radius)), key=lambda e: (basis.radius[e], abs(basis.frequency[e]), e))


def visible_channel(element: Tensor) -> tuple[int, int]:
    """Find the first channels (output, input) where an element (n_out, n_in, k, k) has half its largest norm."""
    norms = element.square().sum((-2, -1)).flatten()
    first = int((norms >= norms.max() / 4).nonzero()[0])
    return divmod(first, element.shape[1])


def field_pair(weight: Tensor, pair: tuple[int, int]) -> Tensor:
    """Select the (K,) coefficients of a pair of fields from the weight (out_fields, in_fields, K) of a layer.

    Args:
        weight: Weight of the layer.
        pair: Indices of the input field and of the output field.

    Raises:
        ValueError: If there are no such fields; the message says how many there are.
    """
    into, out = pair
    fields_out, fields_in, _ = weight.shape
    if not (0 <= into < fields_in and 0 <= out < fields_out):
        raise ValueError(
            f'the field pair {into} {out} (input, output) is not in the layer: its input fields are 0 to '
            f'{fields_in - 1}, its output fields 0 to {fields_out - 1}'
        )
    return weight[out, into].detach()


def combine(basis: SteerableBasis, coefficients: Tensor) -> Tensor:
    """Expand (K,) coefficients of a pair of fields to its (n_out, n_in, k, k) part of the filter, in float64."""
    return torch.tensordot(coefficients.detach().double().cpu(), basis.samples, dims=1)


def orientation_names(group: str) -> list[str]:
    """Name each orientation channel: '0°', '45°', ..., and 'mirrored, 45°' for the reflections of D_N."""
    rotations = int(group[1:])
    elements = parse_group(group).fibergroup.elements
    pairs = [e if isinstance(e, tuple) else (0, e) for e in elements]
    return [('mirrored, ' if flip else '') + f'{360 * turn / rotations:.4g}°' for flip, turn in pairs]


def relatives(group: str) -> str:
    """Say how the orientation channels of a group are related."""
    return 'turns and mirror images' if group[0] == 'D' else 'turns'


def describe(layer: ennConv | ennTrivialConv) -> list[tuple[str, str]]:
    """Explain the number of coefficients of a layer, in rows of a name and a text."""
    out_fields, in_fields, elements = layer.weight.shape
    k = layer.kernel_size[0]
    into = layer.in_channels // layer.groups
    entries = layer.out_channels * into * k * k
    rings = Counter(layer.basis.radius)
    kind = 'trivial' if layer.trivial_input else 'regular'
    inputs = 'inputs' if layer.trivial_input else 'input fields'
    return [
        ('group', f'{layer.group}, order {group_order(layer.group)}'),
        (
            'fields',
            f'{layer.in_fields} {kind} -> {out_fields} regular{f", {layer.groups} groups" * (layer.groups > 1)}',
        ),
        ('basis', f'K = {elements} elements of {k} x {k} pixels'),
        ('rings', ', '.join(f'{rings[radius]} of radius {radius:g}' for radius in sorted(rings))),
        (
            'coefficients',
            f'{in_fields} {inputs} x {out_fields} fields x {elements} basis elements = {layer.weight.numel()} '
            f'coefficients -> {into} x {layer.out_channels} x {k} x {k} = {entries} filter entries',
        ),
        ('ratio', f'{entries / layer.weight.numel():.3g} filter entries per coefficient'),
    ]
