"""Read and write detections and their standard deviations in OpenMMLab's data samples."""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...adf import Gaussian
from ...adf.mc_dropout import Running
from ...structures import tensor_of


def values_of(samples: Sequence[Any]) -> Tensor:
    """Boxes and scores of all images, (N, 4 + 1) or (N, 5 + 1)."""
    parts = [torch.cat([tensor_of(s.pred_instances.bboxes), s.pred_instances.scores[:, None]], 1) for s in samples]
    return torch.cat(parts)


def detach_detections(samples: Sequence[Any]) -> None:
    """Release the graph of detections, in place."""
    for sample in samples:
        found = sample.pred_instances
        for name, value in list(found.items()):
            if isinstance(value, Tensor):
                setattr(found, name, value.detach())
            elif isinstance(tensor := tensor_of(value), Tensor):
                value.tensor = tensor.detach()


def put_stds(samples: Sequence[Any], data: Tensor, model: Tensor | None, error: Tensor | None = None) -> None:
    """Give each sample's `pred_instances` the standard deviations of its rows.

    Args:
        samples: With detections.
        data: (N, D + 1) variances of box and score due to the noise of the image.
        model: (N, D + 1) variances due to the weights, or None.
        error: (D, 2), factors and constants applied to the variances of boxes, of data and model together.
    """
    parts = {'': data} if model is None else {'': data + model, '_data': data, '_model': model}
    if error is not None:
        error = error.to(data)
        boxes, score = parts[''][:, :-1], parts[''][:, -1:]
        parts[''] = torch.cat([boxes * error[:, 0] + error[:, 1], score], 1)
    sizes = [len(sample.pred_instances) for sample in samples]
    for suffix, variance in parts.items():
        for sample, std in zip(samples, variance.sqrt().split(sizes), strict=True):
            sample.pred_instances.set_field(std[:, -1].contiguous(), f'scores_std{suffix}')
            sample.pred_instances.set_field(std[:, :-1].contiguous(), f'bboxes_std{suffix}')


def put_score_maps(samples: Sequence[Any], maps: Sequence[Tensor | Gaussian], size: tuple[int, int]) -> None:
    """Give each sample `score_std_map`, (h, w): the largest standard deviation of a score at each pixel.

    Args:
        samples: With `img_shape`, (h, w) of the image without padding.
        maps: Logits of a dense head, (B, channels, H, W) for each level; scores are their sigmoids.
        size: (H, W) of the batch.

    Raises:
        ValueError: If no map has a variance, as in a detector without dense head and RPN.
    """
    logits = [level for level in maps if isinstance(level, Gaussian)]
    if not logits:
        raise ValueError('score_map=True needs a dense head or an RPN, whose scores are maps; this detector has none')
    joined: Any = torch.cat([level.reshape(-1) for level in logits])  # at once, for small maps
    parts = joined.sigmoid().std.split([level.numel() for level in logits])
    levels = [part.view(level.shape).amax(1, keepdim=True) for part, level in zip(parts, logits, strict=True)]
    whole = reduce(torch.maximum, [F.interpolate(level, size, mode='bilinear')[:, 0] for level in levels])
    for sample, values in zip(samples, whole, strict=True):
        height, width = sample.metainfo.get('img_shape', size)[:2]
        sample.score_std_map = values[:height, :width].clone()


def variance_of(values: Iterable[Tensor]) -> Tensor:
    """Unbiased variance over an iterable, holding one value at a time."""
    moments = Running()
    for value in values:
        moments.add(value, None)
    return moments.result().model_variance
