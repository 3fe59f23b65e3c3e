"""Merge detections on patches into a submission of whole images, and score them against the whole images' labels."""

import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.formats.readers import read_source
from ..datasets.formats.source import Source
from ..utils.atomic_files import write_whole
from ..utils.messages import some
from .errors import EvaluationError
from .functional.prediction_files import class_names, read_predictions
from .functional.submission import check_submission, merge_patches, parse_patch, write_submission
from .metrics.dota_metric import DOTAMetric


@dataclass
class Merged:
    """What was merged.

    Args:
        file: The file that was written: a submission, or a JSON file.
        patches: Number of patches with detections.
        images: Number of whole images with detections.
        before: Number of detections on patches.
        after: Number of detections that stay.
        classes: Class names.
        scores: mAP and the other numbers of `DOTAMetric`; empty without labels.
        notes: What does not count in the scores, one line each.
    """

    file: Path
    patches: int = 0
    images: int = 0
    before: int = 0
    after: int = 0
    classes: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def merge_predictions(
    predictions: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    iou_thr: float = 0.1,
    labels: str | os.PathLike[str] | None = None,
    from_format: str | None = None,
    split: str | None = None,
    iou_thrs: Sequence[float] = (0.5,),
    eval_mode: str = '11points',
    angle: str | None = None,
) -> Merged:
    """Merge detections on patches, as `split_dataset` or the splitters of DOTA and mmrotate name them.

    Each detection moves to the place of its patch; of those of one class that overlap by more than `iou_thr` the best
    stays (`rotated_nms`). All names are checked before anything is written.

    Args:
        predictions: See `read_predictions`: the JSON file that `DOTAMetric` writes with `outfile_prefix`, or a folder
            or zip file of Task1_CLASS.txt.
        out: A folder to create, for Task1_CLASS.txt and OUT/OUT.zip as DOTA's server takes it; or a file to create,
            ending in ``.json``, for the same detections as `DOTAMetric` writes them, which may be of images with blanks
            in their names.
        classes: Class names in the order of their numbers, or a file of them.
        iou_thr: Largest overlap of two detections of one class that both stay.
        labels: Data set of the whole images, in any format that `convert_dataset` reads. None for no scores.
        from_format: Format of `labels`; None to recognise it.
        split: Its part to score, such as 'val'; None for all. In an image without detections, nothing was found.
        iou_thrs: Smallest overlap of a hit, one or several.
        eval_mode: '11points' (DOTA's server) or 'area'.
        angle: What the fifth number of a `bbox` in COCO's JSON of `labels` is.

    Raises:
        InputError: If a file cannot be read, a name does not say where its patch was cut, an argument is wrong, or
            `out` exists or cannot be written.
    """
    target = Path(out)
    to_json = target.suffix.lower() == '.json'
    if not 0 <= iou_thr <= 1:
        raise EvaluationError(f'iou_thr={iou_thr} must be between 0 and 1')
    found, names = read_predictions(Path(predictions), None if classes is None else class_names(classes))
    if to_json:
        for name in found:
            parse_patch(name, blanks=True)
        if os.path.lexists(target):
            raise EvaluationError(f"OUT '{target}' exists already: remove it, or name a new file")
    else:
        check_submission(found, names, target, argument='OUT ')
    metric = None
    if labels is not None:
        try:
            metric = DOTAMetric(list(iou_thrs), eval_mode=eval_mode)
        except ValueError as error:
            raise EvaluationError(str(error)) from error
        metric.dataset_meta = {'classes': tuple(names)}
        truth = read_source(Path(labels), from_format, angle=angle)
    merged = merge_patches(({'img_id': name, **image} for name, image in found.items()), iou_thr, blanks=to_json)
    done = Merged(
        target,
        len(found),
        len(merged),
        sum(len(image['scores']) for image in found.values()),
        sum(len(image['scores']) for image in merged.values()),
        names,
    )
    if metric is not None:
        images, done.notes = pair_with_labels(merged, truth, names, split)
        done.scores = {key: float(value) for key, value in metric.measure(images).items()}
    try:
        if to_json:
            write_whole(target, json.dumps(list(_records(merged)), ensure_ascii=False) + '\n')
        else:
            done.file = write_submission(merged, names, target)
    except OSError as error:
        raise EvaluationError(f"OUT '{target}' could not be written: {error.strerror or error}") from error
    return done


def pair_with_labels(
    merged: Mapping[str, Mapping[str, np.ndarray]], truth: Source, classes: Sequence[str], split: str | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Put detections and labels of each whole image together, as `DOTAMetric.measure` takes them.

    Args:
        merged: See `merge_patches`.
        truth: Data set of the whole images.
        classes: Class names; objects of others do not count.
        split: Part of the data set; None for all.

    Returns:
        One dict for each labelled image, and notes of what does not count.

    Raises:
        EvaluationError: If there is no such part, or no image is in both.
    """
    samples = [sample for sample in truth.samples if split in (None, sample.split)]
    if not samples:
        there = some(sorted({repr(sample.split) for sample in truth.samples}))
        raise EvaluationError(f'split={split!r}: {truth.where} has {there}')
    found = {_plain(name): image for name, image in merged.items()}
    stems = [_plain(sample.image.stem) for sample in samples]
    twice = [stem for stem in stems if stems.count(stem) > 1] if len(set(stems)) < len(stems) else []
    if twice:
        raise EvaluationError(f'{truth.where} has two images named {twice[0]!r}; name one part of it with split')
    both = [stem for stem in stems if stem in found]
    if not both:
        raise EvaluationError(
            f'{truth.where}: no labelled image has a detection; labels of {some(stems, 3)}, detections of '
            f'{some(found, 3) or "nothing"}'
        )
    number = {name: label for label, name in enumerate(classes)}
    columns = next(iter(merged.values()))['bboxes'].shape[1]
    empty = {'bboxes': np.zeros((0, columns)), 'scores': np.zeros(0), 'labels': np.zeros(0)}
    images, other = [], 0
    for stem, sample in zip(stems, samples, strict=True):
        objects = [one for one in sample.objects if one.name in number]
        other += len(sample.objects) - len(objects)
        images.append({
            **found.get(stem, empty),
            'img_id': stem,
            'labelled': True,
            'gt_bboxes': np.array([one.polygon for one in objects], np.float64).reshape(-1, 8),
            'gt_labels': np.array([number[one.name] for one in objects], np.int64),
            'gt_ignored': np.array([one.difficulty > 0 for one in objects], bool),
        })  # fmt: skip
    notes = []
    if len(both) < len(stems):
        notes.append(f'{len(stems) - len(both)} of {len(stems)} labelled images have no detection')
    if len(both) < len(found):
        names = some(sorted(set(found) - set(stems)))
        notes.append(f'{len(found) - len(both)} images with detections have no labels, and do not count ({names})')
    if other:
        notes.append(f'{other} objects are of classes that the detections do not have, and do not count')
    return images, notes


def _records(merged: Mapping[str, Mapping[str, np.ndarray]]) -> Any:
    for name, image in merged.items():
        for box, score, label in zip(image['bboxes'], image['scores'], image['labels'], strict=True):
            yield dict(image_id=name, bbox=box.tolist(), score=float(score), category_id=int(label))


def _plain(name: str) -> str:
    return unicodedata.normalize('NFC', name)
