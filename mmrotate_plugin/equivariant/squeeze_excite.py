"""Weigh fields by what the whole map holds: squeeze and excitation."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fields import DEFAULT_GROUP, count_fields


class ennSqueezeExcite(nn.Module):
    r"""Multiply each field by a gate that is computed from the means of all fields.

    The mean of a field over the map and over its orientations does not change when the image turns, so neither does
    the gate, and the layer commutes with the group whatever the two fully connected layers learn:

    .. math::
        s = \sigma(W_2\, \mathrm{relu}(W_1 \bar x + b_1) + b_2), \qquad y_f = s_f x_f

    Hu, Shen & Sun, Squeeze-and-Excitation Networks, CVPR 2018 (arXiv:1709.01507), with fields in place of channels.

    Args:
        num_features: Tensor channels, a multiple of the group's order.
        ratio: How many fields share a unit of the hidden layer, which has at least one.
        device, dtype: As in `torch.nn.Linear`.
        group: Fiber group such as 'C8'.

    Attributes:
        fc1, fc2: The fully connected layers, from F fields to max(1, F / ratio) units and back.

    Shape:
        - Input, output: (B, num_features, H, W), orientation fastest.

    Raises:
        ValueError: If the group's order does not divide `num_features`, or `ratio` is no integer >= 1.
    """

    def __init__(
        self,
        num_features: int,
        ratio: int = 4,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        group: str = DEFAULT_GROUP,
    ) -> None:
        super().__init__()
        self.fields = count_fields(num_features, group, 'num_features')
        if not isinstance(ratio, int) or isinstance(ratio, bool) or ratio < 1:
            raise ValueError(f'ratio={ratio!r} must be an integer >= 1: how many fields share a hidden unit')
        self.num_features, self.ratio, self.group = num_features, ratio, group
        hidden = max(1, self.fields // ratio)
        where: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.fc1 = nn.Linear(self.fields, hidden, **where)
        self.fc2 = nn.Linear(hidden, self.fields, **where)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, num_features, H, W) to the same shape."""
        b, c, h, w = x.shape
        fields = x.reshape(b, self.fields, c // self.fields, h, w)
        means = torch.mean(fields, (2, 3, 4))  # torch's function: the method of a Gaussian is its tensor
        gates = torch.sigmoid(self.fc2(F.relu(self.fc1(means))))
        return (fields * gates.reshape(b, self.fields, 1, 1, 1)).reshape(b, c, h, w)

    def extra_repr(self) -> str:
        return f'{self.num_features}, ratio={self.ratio}, group={self.group}'
