"""Write the report of a training or a test."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.dist import collect_results, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...registry import HOOKS, register
from ...utils.messages import reason_of


@register(HOOKS)
class ReportHook(Hook):
    """Write ``report.html`` into the work directory after a training and after a test.

    The page needs no other file. It has the curves of the training, what the last validation or the test found, image
    by image and class by class, speed, versions and config; ``report/`` beside it has the figures (PNG), the numbers
    (report.json) and the detections (val.npz, test.npz). See `engine.report.write_report`.

    A failure of the report is a warning that says why; it never ends a run.

    Args:
        iou_thr: Smallest overlap of a hit, for all but the average precisions.
        score_thr: Detections below it are left out of the confusion matrix, the errors and the worst images; by default
            the threshold with the largest F1.
        worst: Number of images to show, those with the most errors.

    Raises:
        ValueError: For arguments out of range.
    """

    priority = 'VERY_LOW'  # after the logger has written the last scalars

    def __init__(self, iou_thr: float = 0.5, *, score_thr: float | None = None, worst: int = 8) -> None:
        if not 0 < iou_thr <= 1:
            raise ValueError(f'iou_thr={iou_thr} must be above 0 and at most 1')
        if score_thr is not None and not 0 <= score_thr <= 1:
            raise ValueError(f'score_thr={score_thr} must be between 0 and 1, or None')
        if not isinstance(worst, int) or worst < 0:
            raise ValueError(f'worst={worst!r} must be 0 or a count')
        self.options: dict[str, Any] = dict(iou_thr=iou_thr, score_thr=score_thr, worst=worst)
        self.evaluations: dict[str, Any] = {}
        self.failure: str | None = None
        self._reset()

    def _reset(self) -> None:
        self.images: list[Any] = []
        self.shape: tuple[int, ...] | None = getattr(self, 'shape', None)
        self.inside, self.begin, self.start = 0.0, 0.0, time.perf_counter()

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # whatever it is, the run goes on
            self.failure = self.failure or f'{type(error).__name__}: {reason_of(error)}'

    # ---- validation and test, image by image

    def before_val_epoch(self, runner: Runner) -> None:  # noqa: ARG002
        self._reset()

    def before_test_epoch(self, runner: Runner) -> None:  # noqa: ARG002
        self._reset()

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:  # noqa: ARG002
        self.begin = time.perf_counter()

    before_test_iter = before_val_iter

    def after_val_iter(
        self,
        runner: Runner,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        self.inside += time.perf_counter() - self.begin
        self._try(lambda: self._read(data_batch, outputs))

    after_test_iter = after_val_iter

    def _read(self, data_batch: Any, outputs: Sequence[Any] | None) -> None:
        from ..report.collect import read_image

        for sample in outputs or ():
            if hasattr(sample, 'pred_instances'):
                self.images.append(read_image(sample))
        if self.shape is None and data_batch:
            first = data_batch['inputs'][0]
            self.shape = tuple((first if hasattr(first, 'shape') else first[0]).shape)  # of the views the first

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self._keep(runner, 'val')

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self._keep(runner, 'test')

    def _keep(self, runner: Runner, name: str) -> None:
        """Collect the images of all processes; it has to happen in each of them, whatever went wrong before."""
        whole = time.perf_counter() - self.start
        mine, self.images = self.images, []
        loop = runner.val_loop if name == 'val' else runner.test_loop
        dataset = loop.dataloader.dataset
        images = collect_results(mine, len(dataset), 'cpu')
        if is_main_process() and images:
            self._try(lambda: self._evaluate(runner, name, images, len(mine), whole))

    def _evaluate(self, runner: Runner, name: str, images: Sequence[Any], mine: int, whole: float) -> None:
        from ..report import Evaluation
        from ..report.collect import eval_mode_of, picture_of

        loop = runner.val_loop if name == 'val' else runner.test_loop
        dataset = loop.dataloader.dataset
        labelled = [image for image in images if image is not None]
        if not labelled:
            self.evaluations.pop(name, None)
            return
        facts = {
            'checkpoint': runner.cfg.get('load_from') if name == 'test' else f'after {runner.iter} iterations',
            'seconds_per_image': self.inside / mine,
            'seconds_with_data': whole / mine,
        }
        same = len(labelled) == len(dataset)  # else an index says nothing
        self.evaluations[name] = Evaluation(
            labelled,
            (dataset.metainfo or {}).get('classes', ()),
            eval_mode=eval_mode_of(loop.evaluator),
            facts=facts,
            picture=partial(picture_of, dataset, labelled) if same else None,
        )

    # ---- at the end

    def after_train(self, runner: Runner) -> None:
        self._write(runner, fresh=True)

    def after_test(self, runner: Runner) -> None:
        self._write(runner, fresh=False)

    def _write(self, runner: Runner, *, fresh: bool) -> None:
        if not is_main_process():
            return
        begin = time.perf_counter()
        pages: list[Path] = []
        if self.failure is None:
            self._try(lambda: pages.append(self._report(runner, fresh)))
        if self.failure is not None:
            runner.logger.warning(f'no report was written ({self.failure}); the results of the run are complete')
        elif pages:
            runner.logger.info(f'report: {pages[0]} ({time.perf_counter() - begin:.1f} s)')
        self.evaluations, self.failure = {}, None

    def _report(self, runner: Runner, fresh: bool) -> Path:
        from ..report import save_detections, write_report
        from ..report.collect import facts_of

        folder = Path(runner.work_dir)
        facts = facts_of(runner, self.shape)
        for name, one in self.evaluations.items():
            one.facts = {**one.facts, 'device': facts['device']}
            save_detections(
                folder / 'report' / f'{name}.npz', one.images, one.classes, eval_mode=one.eval_mode, **one.facts
            )
        return write_report(folder, self.evaluations, facts=facts, fresh=fresh, **self.options)
