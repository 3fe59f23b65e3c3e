"""Stretch rotated boxes by unequal factors."""

import torch
from torch import Tensor


def stretch_rotated(boxes: Tensor, scale_x: float, scale_y: float) -> Tensor:
    r"""Scale both axes of rotated boxes, and enclose the result in the smallest rectangle.

    Unequal factors turn a rectangle into a parallelogram, a square at 45 degrees into a rhombus. The result is the
    smallest rectangle around it: OpenCV's `minAreaRect` of its corners, in closed form, so that gradients pass. With
    the scaled unit vectors :math:`u, v` along w and h, and w the longer side after scaling,

    .. math::
        w' = w |u| + h \frac{|u \cdot v|}{|u|}, \qquad h' = h \frac{s_x s_y}{|u|}, \qquad \theta' = \angle u

    Readers of polygons and mmrotate's own `project_` take the smallest rectangle too, so a label may become a box
    before or after the resize. The second term of w' is the price of the shear: it makes a box longer on the way there
    and on the way back. Only equal factors return the original box.

    Args:
        boxes: Boxes (..., 5) as (cx, cy, w, h, angle), in pixels and radians. Gradients pass.
        scale_x: Factor of the horizontal axis, positive.
        scale_y: Factor of the vertical axis, positive.

    Returns:
        Boxes (..., 5) of the same dtype. w stays w, whether longer or not; the angle is in (-pi, pi].
    """
    x, y, w, h, angle = boxes.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    along_w, along_h = torch.hypot(scale_x * cos, scale_y * sin), torch.hypot(scale_x * sin, scale_y * cos)
    shear = abs(scale_x**2 - scale_y**2) * (cos * sin).abs()
    area = scale_x * scale_y
    w_longer = w * along_w >= h * along_h
    new_w = torch.where(w_longer, w * along_w + h * shear / along_w, w * area / along_h)
    new_h = torch.where(w_longer, h * area / along_w, h * along_h + w * shear / along_h)
    new_angle = torch.where(
        w_longer, torch.atan2(scale_y * sin, scale_x * cos), torch.atan2(scale_x * sin, scale_y * cos)
    )
    return torch.stack([x * scale_x, y * scale_y, new_w, new_h, new_angle], -1)
