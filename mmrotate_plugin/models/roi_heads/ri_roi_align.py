"""Rotation-invariant RoI align on any device."""

import math

import torch
from mmcv.ops import RiRoIAlignRotated as MMCVRiRoIAlignRotated
from mmcv.ops import roi_align_rotated
from torch import Tensor, nn

from ...registry import MODELS


@MODELS.register_module()
class RiRoIAlignRotated(nn.Module):
    r"""RoI align that rotates a region upright in space and in its orientation channels.

    Han et al., ReDet, CVPR 2021 (arXiv:2103.07733): after RoI align by the region's angle
    :math:`\theta`, the orientation channels are cycled by :math:`s = \theta N / 2\pi`. With
    :math:`i = \lfloor s \rfloor` and :math:`l = s - i`, output channel o is that of the published operator,

    .. math:: y_o = (1 - l)\, p_{(o - i) \bmod N} + l\, p_{(o - i + 1) \bmod N}

    It is invariant where s is whole. Between, it interpolates towards the wrong neighbour: a region at angle s needs
    channel :math:`o - s`, which lies between :math:`o - i` and :math:`o - i - 1`. Nor does it change direction for
    angles that grow counter-clockwise. Weights trained with it expect it, so it is the default; ``published=False``
    corrects both.

    mmcv has the published operator for CUDA only, where it is used. Elsewhere, the two steps run one after the other.

    Args:
        out_size: Height and width of the output, pixels.
        spatial_scale: Size of the feature map over that of the image.
        num_samples: Samples per output pixel and axis; 0 for one per feature pixel.
        num_orientations: Rotations N of the group, which divide a full turn: 8 for 'C8', and for 'D8', whose fields
            are two such cycles.
        clockwise: Angles grow clockwise on the image (y downwards), as in mmrotate.
        published: Cycle and interpolate as the published operator does. False is invariant, up to linear
            interpolation, at every angle.

    Shape:
        - features: (B, fields * N, H, W), orientation fastest.
        - rois: (n, 6): index in the batch, centre x, y, width, height (image pixels), angle (radians). Sizes below
          one feature pixel count as one. n may be 0.
        - Output: (n, fields * N, h, w), with (h, w) = `out_size`.

    Raises:
        ValueError: If `num_orientations` is below 1 or does not divide the channels, or if `rois` have another shape
            or are not finite.
    """

    def __init__(
        self,
        out_size: int | tuple[int, int],
        spatial_scale: float,
        num_samples: int = 0,
        num_orientations: int = 8,
        clockwise: bool = False,
        *,
        published: bool = True,
    ) -> None:
        super().__init__()
        if num_orientations < 1:
            raise ValueError(f'num_orientations={num_orientations} must be 1 or more')
        height, width = (out_size, out_size) if isinstance(out_size, int) else out_size
        self.out_size = (height, width)
        self.spatial_scale = float(spatial_scale)
        self.num_samples = num_samples
        self.num_orientations = num_orientations
        self.clockwise = clockwise
        self.published = published
        self._cuda_operator = MMCVRiRoIAlignRotated(
            self.out_size, self.spatial_scale, num_samples, num_orientations, clockwise
        )

    @property
    def output_size(self) -> tuple[int, int]:
        """`out_size`, under the name that mmdet's RoI heads read."""
        return self.out_size

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """Pool the regions of features, (B, fields * N, H, W), to (n, fields * N, h, w)."""
        self._check(features, rois)
        if features.is_cuda and self.published:
            return self._cuda_operator(features, rois)
        n, orientations = len(rois), self.num_orientations
        if n == 0:  # keeps the graph, so that a batch without regions trains
            return features.new_zeros(0, features.shape[1], *self.out_size) + 0 * features.sum()
        pooled = roi_align_rotated(  # mmcv's operator reads memory as if it were contiguous
            features.contiguous(),
            rois.contiguous(),
            self.out_size,
            self.spatial_scale,
            self.num_samples,
            False,
            self.clockwise,
        )
        fields = pooled.view(n, -1, orientations, math.prod(self.out_size))  # (n, F, N, h * w)
        return (self._cycle(rois[:, 5]).unsqueeze(1) @ fields).view_as(pooled)

    def _cycle(self, angle: Tensor) -> Tensor:
        """(n, N, N) matrices that cycle and interpolate the orientations."""
        orientations = self.num_orientations
        shift = angle * (orientations / (2 * math.pi))
        if not (self.clockwise or self.published):
            shift = -shift
        whole = shift.floor()
        part = (shift - whole).unsqueeze(1)  # (n, 1)
        index = torch.arange(orientations, device=angle.device) - whole.long().unsqueeze(1)  # (n, N)
        here = nn.functional.one_hot(index % orientations, orientations).to(angle)
        beside = nn.functional.one_hot((index + (1 if self.published else -1)) % orientations, orientations).to(angle)
        return torch.lerp(here, beside, part.unsqueeze(2))

    def _check(self, features: Tensor, rois: Tensor) -> None:
        if features.shape[1] % self.num_orientations:
            raise ValueError(
                f'{features.shape[1]} channels do not hold whole fields of num_orientations={self.num_orientations}'
            )
        if rois.dim() != 2 or rois.shape[1] != 6:
            raise ValueError(f'rois of shape {tuple(rois.shape)}: (n, 6) is needed, batch index, x, y, w, h, angle')
        finite = torch.isfinite(rois).all(1)
        if not finite.all():
            raise ValueError(f'{int((~finite).sum())} of {len(rois)} rois are not finite, first: {rois[~finite][0]}')

    def extra_repr(self) -> str:
        return (
            f'out_size={self.out_size}, spatial_scale={self.spatial_scale}, num_samples={self.num_samples}, '
            f'num_orientations={self.num_orientations}, clockwise={self.clockwise}, published={self.published}'
        )
