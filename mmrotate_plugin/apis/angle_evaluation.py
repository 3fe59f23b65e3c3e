"""Evaluate a detector on scenes at one angle after the other."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from ..datasets import SyntheticAerialDataset
from ..engine.checks import before_run
from ..engine.checks.evaluation_setup import why_no_truth
from ..engine.checks.input_images import check_first_image
from ..evaluation import DOTAMetric
from ..evaluation.angle_curve import precision_at_angle, summarise_angles
from ..utils.errors import UsageError
from ..utils.messages import reason_of

DRAWN, EXACT, RESAMPLED = 'drawn', 'exact', 'resampled'
METRIC_OPTIONS = ('predict_box_type', 'eval_mode')  # of the config's DOTAMetric that hold here


@dataclass(frozen=True)
class Scenes:
    """How the scenes of a data set are brought to an angle.

    Attributes:
        how: 'drawn', by `SyntheticAerialDataset(angles=(degrees, degrees))`; 'exact', images and labels turned by
            multiples of 90 degrees; 'resampled', by any angle, compared within the disc that all angles show.
        loader: The config of a data loader, `test_dataloader`.
    """

    how: str
    loader: Mapping[str, Any]

    def at(self, degrees: float, mirrored: bool = False) -> Any:
        """Build the data loader of an angle in degrees.

        Raises:
            UsageError: If its data set cannot be built.
        """
        loader = deepcopy(dict(self.loader))
        if self.how == DRAWN:
            loader['dataset']['angles'] = (degrees, degrees)
        else:
            step = {'type': 'mmrotate_plugin.TurnImage', 'degrees': degrees, 'flip': mirrored}
            step |= {'disc': True} if self.how == RESAMPLED else {}
            loader['dataset'] = _turned(loader['dataset'], step)
        try:
            return Runner.build_dataloader(loader, seed=0)
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, OSError) as error:
            raise UsageError(f'the data of test_dataloader cannot be read: {reason_of(error)}') from error


def choose(cfg: Config, method: str, degrees: Sequence[float], *, mirrored: bool) -> Scenes:
    """Choose how to bring the test data of a config to angles.

    Args:
        cfg: The config, with `test_dataloader`.
        method: 'draw', 'turn', or 'auto': draw if the data set can.
        degrees: Angles.
        mirrored: Whether the scenes are reflected too, which needs 'turn'.

    Raises:
        UsageError: If the data set cannot be drawn at an angle.
    """
    loader = cfg.get('test_dataloader')
    if not loader:
        raise UsageError('the config has no test_dataloader, whose images are evaluated')
    kind = str(loader.dataset.get('type')).rpartition('.')[2]
    drawable = kind == SyntheticAerialDataset.__name__
    if method == 'draw' and not drawable:
        raise UsageError(
            f'--method draw needs a SyntheticAerialDataset, and the test data are of {kind}: use --method turn'
        )
    if method == 'draw' and mirrored:
        raise UsageError('--mirrored needs turned images: use --method turn')
    if method != 'turn' and drawable and not mirrored:
        how = DRAWN
    else:
        how = EXACT if all(angle % 90 == 0 for angle in degrees) else RESAMPLED
    return Scenes(how, loader)


def metric_of(cfg: Config) -> DOTAMetric:
    """Make the metric that reads detections and ground truth, with the options of the config's `DOTAMetric`."""
    evaluators = cfg.get('test_evaluator') or ()
    options: dict[str, Any] = {}
    for one in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        if str(one.get('type')).rpartition('.')[2] == DOTAMetric.__name__:
            options = {key: one[key] for key in METRIC_OPTIONS if key in one}
    return DOTAMetric(**options)


def precision_over_angles(
    model: Any,
    scenes: Scenes,
    degrees: Sequence[float],
    metric: DOTAMetric,
    *,
    mirrored: bool = False,
    num_images: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Evaluate a detector at one angle after the other.

    Args:
        model: In eval mode; its `test_step` is called with the batches of the loader.
        scenes: How the scenes get there.
        degrees: Angles; those of turned images count counter-clockwise, those of drawn scenes as their data set does.
        metric: Reads the samples, and says how to count.
        mirrored: Whether to evaluate each angle with reflected scenes, too.
        num_images: Number of images, the first of the data set; None for all.

    Yields:
        The report so far, after each angle: `how`, `classes`, `images`, `angles` (`degrees`, `mirrored`, and what
        `precision_at_angle` gives) and `summary`. The last one is the result.

    Raises:
        UsageError: If the data have no ground truth, or do not fit the model.
    """
    rows: list[dict[str, Any]] = []
    everything: list[Any] = []
    for flip in (False, True) if mirrored else (False,):
        for angle in degrees:
            loader = scenes.at(angle, flip)
            if not rows:
                check(model, loader.dataset)
            classes = loader.dataset.metainfo['classes']
            metric.dataset_meta = loader.dataset.metainfo
            images = read(model, loader, metric, num_images)
            everything += images
            row = precision_at_angle(images, classes, eval_mode=metric.eval_mode)
            rows.append({'degrees': float(angle), 'mirrored': flip, **row})
            together = precision_at_angle(everything, classes, eval_mode=metric.eval_mode) if len(rows) > 1 else row
            yield {
                'how': scenes.how,
                'classes': list(classes),
                'images': len(images),
                'angles': rows,
                'summary': summarise_angles(rows, together),
            }


def check(model: Any, dataset: Any) -> None:
    """Refuse data without ground truth, or that do not fit the model, before the first image."""
    if not len(dataset):
        raise UsageError('the data set of test_dataloader has no images')
    reason = why_no_truth(dataset)
    if reason:
        raise UsageError(f'test_dataloader has no ground truth to evaluate with: {reason}')
    if isinstance(model, torch.nn.Module):
        before_run.check_heads(model, dataset, 'test_dataloader')
        check_first_image(model, dataset)


@torch.no_grad()
def read(model: Any, loader: Any, metric: DOTAMetric, num_images: int | None = None) -> list[Any]:
    """Run a detector over a loader; return detections with ground truth, as the metric keeps them."""
    metric.results.clear()
    for batch in loader:
        metric.process(batch, [sample.to_dict() for sample in model.test_step(batch)])
        if num_images is not None and len(metric.results) >= num_images:
            break
    return list(metric.results[:num_images])


def with_step(pipeline: Sequence[Mapping[str, Any]], step: Mapping[str, Any]) -> list[Any]:
    """Return a pipeline with a step behind those that load the image."""
    steps = list(pipeline)
    last = max((i for i, one in enumerate(steps) if 'LoadImage' in str(one.get('type'))), default=-1)
    return [*steps[: last + 1], dict(step), *steps[last + 1 :]]


def _turned(dataset: Mapping[str, Any], step: Mapping[str, Any]) -> dict[str, Any]:
    """Add a step to the data sets inside of wrappers; parts that are one object in the config stay two here."""
    if isinstance(several := dataset.get('datasets'), (list, tuple)):
        return {**dataset, 'datasets': [_turned(part, step) for part in several]}
    if isinstance(inner := dataset.get('dataset'), Mapping):
        return {**dataset, 'dataset': _turned(inner, step)}
    return {**dataset, 'pipeline': with_step(dataset.get('pipeline') or (), step)}
