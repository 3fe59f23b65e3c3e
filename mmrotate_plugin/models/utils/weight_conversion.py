"""State dicts of mmrotate's and the original ReDet's equivariant networks, and of ours: keys both ways.

=====================  =================================  =======================================
here                   e2cnn (mmrotate, ReDet)            value
=====================  =================================  =======================================
``conv1.weight``       ``conv1.weights``                  (fields out, fields in, K), flat there
``bn1.norm.weight``    ``bn1.batch_norm_[8].weight``      the same; 8 is the order of the group
(derived, not saved)   ``conv1.filter``, ``bn1.indices_8``, ...  expanded filters, sampled kernels, indices
=====================  =================================  =======================================
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from torch import Tensor

from ...equivariant.basis import steerable_basis
from ...equivariant.conv import DERIVED_KEYS
from ...equivariant.fields import group_order

State = Mapping[str, Tensor]
Weights = OrderedDict[str, Tensor]  # may carry `_metadata`, as torch's state dicts do

STEM = re.compile(r'(?!.*layer\d\.)(?:.*\.)?(conv1|stem\.\d)')
BLOCK = re.compile(r'(?:.*\.)?layer\d\.\d+\.(?:conv\d|downsample\.\d)')
NECK = re.compile(r'(?:.*\.)?(lateral|fpn)_convs\.\d+\.conv')
E2CNN_NORM = re.compile(r'(.*)\.batch_norm_\[(\d+)\]\.(\w+)')
OUR_NORM = re.compile(r'((?:.*\.)?(?:(?:bn|gn)\d?|stem\.\d|downsample\.\d))\.norm\.(\w+)')


class ConversionError(ValueError):
    """A state dict that cannot be converted; the message says why."""


def kind_of(state: State) -> str | None:
    """'mmrotate' for a state dict with e2cnn's keys, 'plugin' for one with ours, None without steerable layers."""
    if any(key.rpartition('.')[2] == 'weights' and value.dim() == 1 for key, value in state.items()):
        return 'mmrotate'
    return 'plugin' if _our_convs(state) else None


def group_of(state: State) -> str:
    """The fiber group of a state dict: as noted or as its sampled kernels are named, else C_N by the order N.

    Raises:
        ConversionError: If no layer tells the order.
    """
    noted = {entry['group'] for entry in getattr(state, '_metadata', {}).values() if 'group' in entry}
    if len(noted) == 1:
        return noted.pop()
    # e2cnn names the trivial representation of D_N by a reflection's and a rotation's frequency: 'irrep_0,0'
    dihedral = any("'irrep_0,0'" in key for key in state)
    orders = {int(m[2]) for key in state if (m := E2CNN_NORM.fullmatch(key))}
    orders |= {t.shape[1] for key, t in state.items() if key.endswith('.sampled_basis')}
    if not orders:
        orders = {state[f'{conv}.weight'].shape[2] for conv in _our_convs(state) if _kernel_size(conv, state) == 1}
    if len(orders) != 1:
        raise ConversionError(f'the order of the group cannot be told: its layers name {sorted(orders) or "none"}')
    (order,) = orders
    return f'D{order // 2}' if dihedral else f'C{order}'


def to_plugin(state: State) -> Weights:
    """Convert e2cnn's keys to ours; keys of other layers, such as heads, stay.

    Raises:
        ConversionError: If a layer is none of ReResNet's or ReFPN's, or its numbers do not fit together.
    """
    group = group_of(state)
    convs = {key.removesuffix('.weights') for key, t in state.items() if key.endswith('.weights') and t.dim() == 1}
    result: Weights = OrderedDict()
    for key, value in state.items():
        conv = next((c for c in _ancestors(key) if c in convs), None)
        norm = E2CNN_NORM.fullmatch(key)
        if conv is not None and key == f'{conv}.weights':
            result[f'{conv}.weight'] = _unflatten(state, conv, group)
        elif norm is not None:
            result[f'{norm[1]}.norm.{norm[3]}'] = value
        elif not (conv and DERIVED_KEYS.fullmatch(key[len(conv) + 1 :])) and not re.fullmatch(r'.*\.indices_\d+', key):
            result[key] = value
    return _noted(result, group)


def to_mmrotate(state: State) -> Weights:
    """Convert our keys to e2cnn's; keys of other layers, such as heads, stay. What e2cnn derives is left out.

    Raises:
        ConversionError: If the norms are group norms, which e2cnn lacks.
    """
    group = group_of(state)
    order = group_order(group)
    convs = set(_our_convs(state))
    result: Weights = OrderedDict()
    for key, value in state.items():
        layer = key.removesuffix('.weight')
        norm = OUR_NORM.fullmatch(key)
        if key.endswith('.weight') and layer in convs:
            result[f'{layer}.weights'] = value.flatten()
        elif norm is not None:
            if f'{norm[1]}.norm.running_mean' not in state:
                raise ConversionError(f'{norm[1]} is a group norm; e2cnn has batch norms over fields only')
            result[f'{norm[1]}.batch_norm_[{order}].{norm[2]}'] = value
        else:
            result[key] = value
    return _noted(result, group)


def _our_convs(state: State) -> list[str]:
    keys = (key.removesuffix('.weight') for key, value in state.items() if key.endswith('.weight') and value.dim() == 3)
    return [key for key in keys if any(place.fullmatch(key) for place in (STEM, BLOCK, NECK))]


def _ancestors(key: str) -> Iterable[str]:
    """'a.b.c' to 'a', 'a.b'."""
    parts = key.split('.')
    return ('.'.join(parts[:i]) for i in range(1, len(parts)))


def _kernel_size(conv: str, state: State) -> int:
    """Size of a convolution's kernel, by its place in ReResNet or ReFPN."""
    block, _, name = conv.rpartition('.')
    if stem := STEM.fullmatch(conv):
        return 7 if stem[1] == 'conv1' else 3
    if neck := NECK.fullmatch(conv):
        return 1 if neck[1] == 'lateral' else 3
    if not BLOCK.fullmatch(conv):
        raise ConversionError(f"'{conv}' is no convolution of a ReResNet or a ReFPN")
    bottleneck = any(f'{block}.conv3.{leaf}' in state for leaf in ('weight', 'weights'))
    return 1 if block.endswith('downsample') or name == 'conv3' or (bottleneck and name == 'conv1') else 3


def _unflatten(state: State, conv: str, group: str) -> Tensor:
    """Flat coefficients of e2cnn as (fields out, fields in, K)."""
    flat = state[f'{conv}.weights']
    sampled = [t for key, t in state.items() if key.startswith(f'{conv}.') and key.endswith('.sampled_basis')]
    if sampled:
        elements = sampled[0].shape[0]
    else:
        stem = STEM.fullmatch(conv)
        reads_image = stem is not None and stem[1] in ('conv1', 'stem.0')
        elements = len(steerable_basis(group, _kernel_size(conv, state), trivial_input=reads_image))
    bias = state.get(f'{conv}.bias')
    norm = _norm_after(conv)
    scales = [t for key, t in state.items() if key.startswith(f'{norm}.batch_norm_[') and key.endswith('.running_mean')]
    if bias is None and not scales:
        raise ConversionError(f"'{conv}' has neither a bias nor a norm '{norm}' that would tell its number of fields")
    fields = (bias if bias is not None else scales[0]).numel()
    if flat.numel() % (fields * elements):
        raise ConversionError(
            f"'{conv}' has {flat.numel()} coefficients, no multiple of {fields} fields x {elements} kernels "
            '(those of a dilated convolution can only be told from a file with its sampled kernels)'
        )
    return flat.reshape(fields, -1, elements)


def _norm_after(conv: str) -> str:
    block, _, name = conv.rpartition('.')
    if name == 'conv':
        return f'{block}.bn'
    following = f'bn{name[4:]}' if name.startswith('conv') else str(int(name) + 1)
    return f'{block}.{following}' if block else following


def _noted(state: Weights, group: str) -> Weights:
    """The state dict with its group in the metadata of backbone and neck, where the loading check looks for it."""
    first = re.compile(r'(?!.*layer\d\.)((?:.*\.)?)(?:conv1|stem\.0|lateral_convs\.0\.conv)\.weights?')
    prefixes = {match[1][:-1] for key in state if (match := first.fullmatch(key))}
    state._metadata = OrderedDict((prefix, {'group': group}) for prefix in sorted(prefixes))
    return state
