"""Check an evaluation before its first image: its ground truth, and the names for a submission.

Also guard the hosts' metrics while they run: without ground truth they end in a KeyError after the last image, or give
0.0 or -1 as if something had been measured.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine import dist
from mmengine.evaluator import BaseMetric

from ...datasets.utils.wrappers import leaves
from ...evaluation import EvaluationError
from ...evaluation.functional.ground_truth import is_labelled, name_of
from ...evaluation.functional.submission import check_submission, parse_patch
from ...evaluation.metrics.dota_metric import no_truth
from ...utils.errors import UsageError
from ...utils.messages import warn


def prepare_evaluation(loop: Any, part: str, *, save_best: Any = None) -> None:
    """Check the data of a val or test loop against its metrics, and guard hosts' metrics (`TruthGuard`).

    Args:
        loop: Loop of mmengine's runner, with `dataloader` and `evaluator`.
        part: 'val' or 'test', for messages.
        save_best: Option of the checkpoint hook, which needs a number to choose by.

    Raises:
        EvaluationError: If a submission cannot be right.
        UsageError: If `save_best` has no ground truth.
    """
    dataset, metrics = loop.dataloader.dataset, loop.evaluator.metrics
    for metric in metrics:
        check_files(metric, dataset)
    judges = [metric for metric in metrics if judges_detections(metric)]
    reason = why_no_truth(dataset) if judges and not any(map(own_truth, judges)) else None
    if reason and save_best:
        raise UsageError(
            f'{part}_dataloader has no ground truth: {reason}; save_best={save_best!r} has nothing to choose by: give '
            'labels, or leave save_best out'
        )
    if reason and not all(map(writes_only, judges)):
        names = ', '.join(type(metric).__name__ for metric in judges)
        warn(f'{part}_dataloader has no ground truth: {reason}. {names} will give no number' + (
            '; --out FILE.pkl writes the predictions' if part == 'test' else ''
        ))  # fmt: skip
    for metric in judges:
        if not type(metric).__module__.startswith('mmrotate_plugin.') and not isinstance(metric.process, GuardedCall):
            TruthGuard(metric)


def check_files(metric: Any, dataset: Any) -> None:
    """Do what `DOTAMetric.check_submission` does, also for mmrotate's metric of this name.

    Raises:
        EvaluationError: See there; if mmrotate's metric would put a box in another place or image; for its
            `scale_ranges`, which end in a NotImplementedError.
    """
    own = hasattr(metric, 'check_submission')
    if not own and type(metric).__name__ == 'DOTAMetric' and getattr(metric, 'scale_ranges', None):
        raise EvaluationError(
            "scale_ranges: mmrotate's DOTAMetric does not implement them; type='mmrotate_plugin.DOTAMetric' does"
        )
    if not getattr(metric, 'merge_patches', False):
        return
    names = [str(info.get('img_id')) for info in infos(dataset)]
    if own:
        metric.check_submission(names)
        return
    if not metric.outfile_prefix:
        raise EvaluationError('merge_patches=True writes files: outfile_prefix must say where')
    check_submission(names, metric.dataset_meta['classes'], metric.outfile_prefix)
    for name in names:
        patch = parse_patch(name)
        if patch.rate != 1 or '__' in patch.image:
            raise EvaluationError(
                f"image '{name}': mmrotate's DOTAMetric would merge it as '{name.split('__')[0]}' and leave out the "
                "scale; type='mmrotate_plugin.DOTAMetric' takes the same arguments and merges it right"
            )


def infos(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """Yield what a data set of mmengine knows of each image before it is read; nothing for other data sets."""
    if hasattr(dataset, 'get_data_info'):
        yield from (dataset.get_data_info(i) for i in range(len(dataset)))


def why_no_truth(dataset: Any) -> str | None:
    """Say why no sample of a data set can have an object that counts; return None if one can, or if it cannot tell."""
    parts = list(leaves(dataset))
    if all(loads_no_labels(part) for part in parts):
        return 'its pipeline does not load annotations (LoadAnnotations)'
    images = ignored = 0
    for info in infos(dataset):
        if 'instances' not in info:
            return None
        for instance in info['instances']:
            if not instance.get('ignore_flag'):
                return None
            ignored += 1
        images += 1
    if not images:
        return None
    because = "; ann_file is ''" if all(getattr(part, 'ann_file', None) == '' for part in parts) else ''
    return f'all {ignored} objects are ignored' if ignored else f'{images} images have no objects{because}'


def loads_no_labels(dataset: Any) -> bool:
    """Tell whether a pipeline of the hosts' transforms loads no labels; a user's own transform may do anything."""
    steps = list(flat(getattr(getattr(dataset, 'pipeline', None), 'transforms', ())))
    known = ('mmcv.', 'mmdet.', 'mmengine.', 'mmrotate.', 'mmrotate_plugin.')
    return bool(steps) and not any(
        'Annotation' in type(step).__name__ or not type(step).__module__.startswith(known) for step in steps
    )


def flat(steps: Iterable[Any]) -> Iterator[Any]:
    """Yield the steps of a pipeline, and those inside of wrappers; `TestTimeAug` has several pipelines."""
    for step in steps:
        yield step
        yield from flat(getattr(step, 'transforms', None) or getattr(step, 'subroutines', None) or ())


def judges_detections(metric: Any) -> bool:
    """Tell whether a metric compares, unlike DumpResults and others that write results."""
    return isinstance(metric, BaseMetric) and not type(metric).__name__.startswith('Dump')


def writes_only(metric: Any) -> bool:
    return bool(getattr(metric, 'format_only', False) or getattr(metric, 'merge_patches', False))


def own_truth(metric: Any) -> bool:
    """Tell whether a metric reads ground truth with objects from its own file (CocoMetric's `ann_file`)."""
    return any(getattr(getattr(metric, name, None), 'anns', None) for name in ('_coco_api', '_lvis_api'))


class GuardedCall:
    """A method of a metric, replaced on the object."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


class TruthGuard:
    """Show a host's metric only labelled images, and return its numbers only if there is something to compare with.

    Its `process` and `evaluate` are replaced on the object, so its type and its arguments stay. Detections that it was
    told to write (`outfile_prefix`) are written all the same. Samples without detections pass.

    Raises:
        UsageError: Within the calls, in place of a KeyError or an assertion about a sample.
    """

    def __init__(self, metric: Any) -> None:
        self.metric = metric
        self._process, self._evaluate = metric.process, metric.evaluate
        metric.process, metric.evaluate = GuardedCall(self.process), GuardedCall(self.evaluate)
        self._forget()

    def _forget(self) -> None:
        self.count = dict(images=0, unlabelled=0, objects=0, ignored=0, others=0)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Process the samples that the metric can judge."""
        passed = []
        for sample in data_samples:
            if 'pred_instances' not in sample or writes_only(self.metric) or own_truth(self.metric):
                self.count['others'] += 1
                passed.append(sample)
                continue
            self.count['images'] += 1
            if not is_labelled(sample) and 'instances' not in sample:
                self.count['unlabelled'] += 1
                if getattr(self.metric, 'outfile_prefix', None):
                    passed.append({**sample, **_no_objects(sample)})
                continue
            if is_labelled(sample):
                self.count['objects'] += len(sample['gt_instances']['bboxes'])
                self.count['ignored'] += len((sample.get('ignored_instances') or {}).get('bboxes', ()))
            else:
                self.count['objects'] += sum(not one.get('ignore_flag') for one in sample['instances'])
            passed.append(sample)
        if passed:
            self._call(self._process, data_batch, passed, where=name_of(passed[0]))

    def evaluate(self, size: int) -> dict[str, Any]:
        """Return the metric's numbers, or none."""
        total = torch.tensor(list(self.count.values()))
        dist.all_reduce(total)
        count = dict(zip(self.count, total.tolist(), strict=True))
        self._forget()
        name = type(self.metric).__name__
        if count['others'] or count['objects']:
            if count['unlabelled']:
                warn(f'{name}: {count["unlabelled"]} of {count["images"]} images have no labels and do not count')
            return self._call(self._evaluate, size, where='all images')
        warn(no_truth(name, count['images'], count['ignored']))
        if getattr(self.metric, 'outfile_prefix', None) and hasattr(self.metric, 'format_only'):
            self.metric.format_only = True
            try:
                return self._call(self._evaluate, size, where='all images')
            finally:
                self.metric.format_only = False
        self.metric.results.clear()
        return {}

    def _call(self, function: Any, *args: Any, where: str) -> Any:
        try:
            return function(*args)
        except (AssertionError, KeyError, NotImplementedError) as error:
            name = type(self.metric).__name__
            raise UsageError(
                f'{name} cannot judge {where}: {type(error).__name__}: {error}; the test pipeline must give '
                'what it compares with (LoadAnnotations, meta_keys of PackDetInputs)'
            ) from error


def _no_objects(sample: Mapping[str, Any]) -> dict[str, Any]:
    boxes = sample['pred_instances']['bboxes']
    nothing = {'bboxes': boxes[:0], 'labels': sample['pred_instances']['labels'][:0]}
    return {'gt_instances': nothing, 'ignored_instances': dict(nothing), 'instances': []}
