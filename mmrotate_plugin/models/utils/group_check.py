"""Check that the parts of a detector have one group; channels alone do not tell."""

from torch import nn

from ...equivariant import ennGroupPool, parse_group


def check_groups(detector: nn.Module) -> None:
    """Compare the groups of a detector's `backbone`, `neck`, `bbox_head` and rotation-invariant RoI aligns.

    Parts without equivariant layers have no group and may follow anything: they see plain tensors. An equivariant
    head, and a rotation-invariant RoI align, which cycles orientation channels, must follow equivariant features.

    Args:
        detector: A detector of mmdet or mmrotate; parts that it lacks are skipped.

    Raises:
        ValueError: If two parts have different groups, or such a head or RoI align follows features without
            orientations or with another number of rotations. The message names both.
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
    for group in sorted(_groups(getattr(detector, 'bbox_head', None))):
        _check_head(detector, group, dict(found))
    for name, layer in detector.named_modules():
        if type(layer).__name__ == 'RiRoIAlignRotated':
            _check_roi_align(detector, name, layer.num_orientations, found)


def _check_head(detector: nn.Module, group: str, found: dict[str, str]) -> None:
    source = 'neck' if getattr(detector, 'neck', None) is not None else 'backbone'
    if not isinstance(getattr(detector, source, None), nn.Module) or _is_foreign(detector):
        return
    what = f"bbox_head has group '{group}' ({_class(detector, 'bbox_head')}), but {source}"
    if source not in found:
        raise ValueError(
            f'{what} ({_class(detector, source)}) has no group, so its maps have no orientations: use ReFPN for the '
            'neck, or bbox_head.group=None'
        )
    if _pools(detector, source):
        raise ValueError(
            f'{what} ({_class(detector, source)}) pools its orientations away: leave group_pool out, or use '
            'bbox_head.group=None'
        )
    if found[source] != group:
        raise ValueError(
            f"{what} has group '{found[source]}' ({_class(detector, source)}): write bbox_head.group='{found[source]}'"
        )


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
    if _pools(detector, source):
        raise ValueError(
            f'{what}, but {source} ({_class(detector, source)}) pools its orientations away: leave group_pool out, or '
            'use RoIAlignRotated'
        )
    rotations = len(parse_group(group).fibergroup.elements) // (2 if group[0] == 'D' else 1)
    if rotations != orientations:
        raise ValueError(
            f"{what}, but {source} has group '{group}' ({_class(detector, source)}): write num_orientations={rotations}"
        )


def _pools(detector: nn.Module, part: str) -> bool:
    return any(isinstance(module, ennGroupPool) for module in getattr(detector, part).modules())


def _groups(part: nn.Module | None) -> set[str]:
    """Find the groups of the equivariant layers in a part."""
    groups = [getattr(module, 'group', None) for module in part.modules()] if part is not None else []
    return {group for group in groups if isinstance(group, str)}


def _is_foreign(detector: nn.Module) -> bool:
    """Tell whether a detector has e2cnn's own modules (mmrotate's ReResNet and ReFPN), which do not name a group."""
    return any(type(m).__module__.startswith('e2cnn.') for m in detector.modules())


def _class(detector: nn.Module, part: str) -> str:
    return type(getattr(detector, part)).__name__
