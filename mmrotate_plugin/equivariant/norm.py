"""Norm layers that treat the orientations of a field alike."""

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from .fields import DEFAULT_GROUP, count_fields, group_order

E2CNN_KEY = re.compile(r'batch_norm_\[(\d+)\]\.(.*)')


class FieldNorm(nn.GroupNorm):
    """Apply an ordinary norm to fields by treating orientations as part of the map's height.

    ``(B, F * |G|, H, W)`` is viewed as ``(B, F, |G| * H, W)``, so the orientations of a field share statistics and
    affine parameters. The inner norm is an ordinary module, so everything that walks through a network finds it:
    `convert_sync_batchnorm`, `norm_eval`, weight-decay exceptions.

    The layer itself counts as a `torch.nn.GroupNorm` for code that checks its class, such as mmcv's `is_norm`, since it
    treats groups of channels alike. It must not be a `BatchNorm2d`: code that folds or replaces those, such as
    `convert_sync_batchnorm`, would take it for a norm of `num_features` channels.

    Args:
        num_features: Tensor channels, a multiple of the group's order.
        norm: Norm over ``num_features / |G|`` channels.
        group: Fiber group.

    Shape:
        - Input, output: (B, num_features, H, W), orientation fastest.
    """

    norm: _NormBase | nn.GroupNorm

    def __init__(self, num_features: int, norm: _NormBase | nn.GroupNorm, group: str) -> None:
        nn.Module.__init__(self)  # the parameters are those of the inner norm
        self.num_features = num_features
        self.group = group
        self.fields = count_fields(num_features, group, 'num_features')
        self.norm = norm

    @property
    def num_channels(self) -> int:
        """`num_features`, by the name in `torch.nn.GroupNorm`."""
        return self.num_features

    @property
    def num_groups(self) -> int:
        """Number of groups that are normalised alike: fields, or the groups of the inner norm."""
        return getattr(self.norm, 'num_groups', self.fields)

    @property
    def eps(self) -> float:
        """Constant added to the variance."""
        return self.norm.eps

    @property
    def affine(self) -> bool:
        """Whether each field has a scale and a shift."""
        return self.norm.affine

    def reset_parameters(self) -> None:
        """Reset scales to one, shifts to zero, and running statistics."""
        self.norm.reset_parameters()

    @property
    def weight(self) -> nn.Parameter | None:
        """Scale (fields,), or None without affine parameters."""
        return self.norm.weight

    @property
    def bias(self) -> nn.Parameter | None:
        """Shift (fields,), or None without affine parameters."""
        return self.norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, num_features, H, W) per field."""
        b, c, h, w = x.shape
        # not -1 for the height, which an empty batch cannot determine
        return self.norm(x.reshape(b, self.fields, c // self.fields * h, w)).reshape(b, c, h, w)

    def extra_repr(self) -> str:
        return f'{self.num_features}, group={self.group}'

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict, strict: bool, *rest: Any
    ) -> None:
        """Accept the keys of e2cnn's InnerBatchNorm, ``batch_norm_[8].weight``, and ignore its indices."""
        missing_keys, unexpected_keys, error_msgs = rest
        order = group_order(self.group)
        for key in [k for k in state_dict if k.startswith(prefix)]:
            match = E2CNN_KEY.fullmatch(key[len(prefix) :])
            if match and int(match[1]) != order:
                error_msgs.append(
                    f"{key} normalises fields of {match[1]} orientations; this layer's group '{self.group}' has {order}"
                )
            if match:
                state_dict[f'{prefix}norm.{match[2]}'] = state_dict.pop(key)
            elif re.fullmatch(r'indices_\d+', key[len(prefix) :]):
                del state_dict[key]
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


class ennBN(FieldNorm):
    """Batch norm with statistics and affine parameters shared by the orientations of a field.

    It is the same map as e2cnn's InnerBatchNorm on regular fields, in training and in eval mode.

    Args:
        num_features: Tensor channels, a multiple of the group's order.
        eps: Constant added to the variance.
        momentum: Weight of the new statistics in the running ones; None for their plain average.
        affine: Whether to learn a scale and a shift per field.
        track_running_stats: Whether to keep running statistics for eval mode.
        device, dtype: As in `torch.nn.BatchNorm2d`.
        group: Fiber group such as 'C8'.

    Shape:
        - Input, output: (B, num_features, H, W), orientation fastest.

    Raises:
        ValueError: If the group's order does not divide `num_features`.
    """

    _abbr_ = 'bn'
    norm_class: type[_BatchNorm] = nn.BatchNorm2d

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        group: str = DEFAULT_GROUP,
    ) -> None:
        fields = count_fields(num_features, group, 'num_features')
        norm = self.norm_class(fields, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        super().__init__(num_features, norm, group)


class ennSyncBN(ennBN):
    """`ennBN` with statistics over all processes (torch's SyncBatchNorm)."""

    norm_class = nn.SyncBatchNorm


class ennGN(FieldNorm):
    """Group norm over groups of whole fields, with affine parameters shared by the orientations of a field.

    Wu & He, Group Normalization, ECCV 2018 (arXiv:1803.08494).

    Args:
        num_features: Tensor channels, a multiple of the group's order.
        num_groups: Number of groups of fields; divides the number of fields.
        eps: Constant added to the variance.
        affine: Whether to learn a scale and a shift per field.
        device, dtype: As in `torch.nn.GroupNorm`.
        group: Fiber group such as 'C8'.

    Shape:
        - Input, output: (B, num_features, H, W), orientation fastest.

    Raises:
        ValueError: If the group's order does not divide `num_features`, or `num_groups` does not divide the fields.
    """

    _abbr_ = 'gn'

    def __init__(
        self,
        num_features: int,
        num_groups: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        group: str = DEFAULT_GROUP,
    ) -> None:
        fields = count_fields(num_features, group, 'num_features')
        if num_groups < 1 or fields % num_groups:
            raise ValueError(
                f"num_groups={num_groups} does not divide the {fields} fields of {num_features} channels of '{group}'"
            )
        super().__init__(num_features, nn.GroupNorm(num_groups, fields, eps, affine, device, dtype), group)


NORMS: dict[str, type[FieldNorm]] = {'BN': ennBN, 'SyncBN': ennSyncBN, 'GN': ennGN}


def build_enn_norm_layer(
    num_features: int, postfix: int | str = '', *, type: str = 'BN', requires_grad: bool = True, **options: Any
) -> tuple[str, FieldNorm]:
    """Build a norm layer for regular fields, and the name that a network keeps it under.

    Args:
        num_features: Tensor channels, a multiple of the group's order.
        postfix: Suffix of the name.
        type: 'BN', 'SyncBN' or 'GN'; its equivariant version is built.
        requires_grad: Whether the affine parameters learn.
        options: Arguments of the layer: group, eps, momentum, num_groups, ...

    Returns:
        Name such as 'bn1', and the layer.

    Raises:
        ValueError: For another type, or arguments that the layer refuses.
    """
    if type not in NORMS:
        raise ValueError(f'type={type!r} has no equivariant version here: use one of {", ".join(NORMS)}')
    layer = NORMS[type](num_features, **options)
    for parameter in layer.parameters():
        parameter.requires_grad = requires_grad
    return f'{layer._abbr_}{postfix}', layer
