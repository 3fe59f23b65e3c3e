"""Do the parts of a detector have one group? Channels alone do not tell."""

from torch import nn

from ...equivariant import ennGroupPool, parse_group


def check_groups(detector: nn.Module) -> None:
    """Compare the groups of a detector's `backbone`, `neck` and rotation-invariant RoI aligns.

    Parts without equivariant layers have no group, and may follow anything: they see plain tensors. A
    rotation-invariant RoI align cycles orientation channels, so it must follow equivariant features.

    Raises:
        ValueError: If two parts have different groups, or such a RoI align follows features without orientations or of
            another number of rotations. The message names both.
    """
    found: list[tuple[str, str]] = []  # (part, its group)
    for part in ('backbone', 'neck'):
        groups = _groups(getattr(detector, part, None))
        found += [(part, group) for group in sorted(groups)]
    for (first, group), (second, other) in zip(found, found[1:], strict=False):
        if group != other:
            raise ValueError(
                f"{first} has group '{group}' ({_class(detector, first)}), but {second} has group '{other}' "
                f'({_class(detector, second)}): give both the same group'
            )
    for name, layer in detector.named_modules():
        if type(layer).__name__ == 'RiRoIAlignRotated':
            _check_roi_align(detector, name, layer.num_orientations, found)


def _check_roi_align(detector: nn.Module, name: str, orientations: int, found: list[tuple[str, str]]) -> None:
    what = f'{name} (RiRoIAlignRotated) has num_orientations={orientations}'
    if _is_foreign(detector):
        return
    source = 'neck' if getattr(detector, 'neck', None) is not None else 'backbone'
    group = dict(found).get(source)
    if group is None:
        raise ValueError(
            f'{what}, but {source} ({_class(detector, source)}) has no group, so its maps have no orientations: use '
            'ReFPN for the neck, or RoIAlignRotated'
        )
    if any(isinstance(module, ennGroupPool) for module in getattr(detector, source).modules()):
        raise ValueError(
            f'{what}, but {source} ({_class(detector, source)}) pools its orientations away: leave group_pool out, or '
            'use RoIAlignRotated'
        )
    rotations = len(parse_group(group).fibergroup.elements) // (2 if group[0] == 'D' else 1)
    if rotations != orientations:
        raise ValueError(
            f"{what}, but {source} has group '{group}' ({_class(detector, source)}): write num_orientations={rotations}"
        )


def _groups(part: nn.Module | None) -> set[str]:
    """Groups of the equivariant layers in a part."""
    return set() if part is None else {m.group for m in part.modules() if isinstance(getattr(m, 'group', None), str)}


def _is_foreign(detector: nn.Module) -> bool:
    """Made of e2cnn's own modules (mmrotate's ReResNet and ReFPN), which say nothing of the kind."""
    return any(type(m).__module__.startswith('e2cnn.') for m in detector.modules())


def _class(detector: nn.Module, part: str) -> str:
    return type(getattr(detector, part)).__name__
