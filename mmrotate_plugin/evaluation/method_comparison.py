"""Compare uncertainty methods on corrupted images with ground truth."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..adf.dropout_sampling import may_drop
from ..datasets.transforms.corruptions import Corruption
from ..models.uncertainty.detector_calibration import calibrate_detector
from ..models.uncertainty.fitted_buffers import is_fitted
from ..models.uncertainty.image_noise import ImageNoise, normalised_variance
from .error_fit import fit_errors, total_std
from .functional.box_residuals import coordinates
from .metrics.uncertainty_metric import Image, UncertaintyMetric, read_sample

if TYPE_CHECKING:
    from ..models.detectors.uncertain_detector import UncertainDetector

Records = list[Image]  # of one method, one per image

# methods, and the rows of results that each gives
METHODS = {
    'confidence': ('confidence',),
    'uncalibrated': ('uncalibrated',),
    'propagated': ('propagated',),
    'jacobian': ('jacobian',),
    'monte_carlo': ('monte_carlo',),
    'dropout': ('dropout', 'propagated + dropout'),
}
MIN_SCORE = 0.1  # smallest score of detections to compare with Monte Carlo, as in the calibration
NUMBERS = (
    'coverage_1_all', 'coverage_2_all', 'coverage_3_all', 'calibration_error_all', 'nll_mean_all', 'nll_median_all',
    'ause_box', 'ause_box_with_score', 'ause_box_by_score', 'ause_box_random', 'ause_false', 'ause_false_with_score',
    'ause_false_by_score', 'ause_false_random', 'spearman_box', 'pearson_box', 'pdq', 'pdq_spatial', 'pdq_label',
    'score_calibration_error', 'detections', 'matched', 'objects',
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What to evaluate.

    Attributes:
        corruptions: Conditions, evaluated in this order.
        methods: Keys of `METHODS`.
        num_images: Number of images of the test set, evenly spread.
        num_fit: Number of images of the validation set to fit gains on.
        num_samples: Monte Carlo passes over noise, also in the calibration.
        dropout_samples: Monte Carlo dropout passes.
        num_jacobian: Number of images for 'jacobian', which takes a backward pass per number of each detection.
        assumed_noise: Noise that the detector assumes, in grey levels, where the corruption is not noise.
        seed: Random seed of corruptions and passes.
    """

    corruptions: tuple[Corruption, ...]
    methods: tuple[str, ...] = tuple(METHODS)
    num_images: int = 24
    num_fit: int = 8
    num_samples: int = 100
    dropout_samples: int = 30
    num_jacobian: int = 2
    assumed_noise: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [method for method in self.methods if method not in METHODS]
        if unknown:
            raise ValueError(f"method '{unknown[0]}' is unknown: use some of {', '.join(METHODS)}")
        for name, least in (('num_images', 4), ('num_fit', 1), ('num_samples', 8), ('dropout_samples', 2)):
            if getattr(self, name) < least:
                raise ValueError(f'{name}={getattr(self, name)} must be {least} or more')
        if not 0 < self.assumed_noise < math.inf:
            raise ValueError(f'assumed_noise={self.assumed_noise} must be a number above 0, in grey levels')
        if not 1 <= self.num_jacobian <= self.num_images:
            raise ValueError(f'num_jacobian={self.num_jacobian} must be from 1 to num_images={self.num_images}')

    def told(self, corruption: Corruption) -> float:
        """Return the noise that the detector assumes, in grey levels."""
        return self.assumed_noise if corruption.noise_std is None else corruption.noise_std

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain values, for JSON."""
        return {**asdict(self), 'corruptions': [corruption.name for corruption in self.corruptions]}


class Evaluation:
    """Evaluate one trained detector under the conditions of a plan.

    Args:
        model: Detector in eval mode with its weights. Calibrated or not: gains are fitted again for each level of
            noise.
        test, fit: mmengine data sets for the evaluation and for the gains.
        evaluators: mmengine evaluator whose metrics give mAP.
        plan: What to evaluate.

    Raises:
        ValueError: If a data set is too small, or 'dropout' is asked of a detector without dropout layers.
    """

    def __init__(self, model: 'UncertainDetector', test: Any, fit: Any, evaluators: Any, plan: Plan) -> None:
        self.model, self.test, self.fit, self.evaluators, self.plan = model, test, fit, evaluators, plan
        for dataset, wanted, name in ((test, plan.num_images, 'test'), (fit, plan.num_fit, 'validation')):
            if len(dataset) < wanted:
                raise ValueError(f'the {name} set has {len(dataset)} images, and {wanted} are wanted')
        if 'dropout' in plan.methods and not may_drop(model):
            raise ValueError(
                "method 'dropout' needs dropout layers, and the detector has none: an ADFResNet takes dropout=0.02; or "
                'leave the method out'
            )
        self._gains: dict[float, dict[str, Tensor]] = {}

    def run(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the conditions and their results, 'clean' (mAP alone) first."""
        yield 'clean', {'map': self._map(None)}
        for corruption in self.plan.corruptions:
            yield corruption.name, self._condition(corruption)

    def _condition(self, corruption: Corruption) -> dict[str, Any]:
        model, plan = self.model, self.plan
        level = plan.told(corruption)
        model.noise = ImageNoise(model.detector, level, None)
        rows: dict[str, Records] = {}
        batches = [self._batch(self.test, i, corruption) for i in spread(len(self.test), plan.num_images)]
        self._set_gains(None)
        if 'uncalibrated' in plan.methods:
            rows['uncalibrated'] = self._predict(batches, method='propagated')['']
        if 'monte_carlo' in plan.methods:
            rows['monte_carlo'] = self._predict(batches, method='monte_carlo', num_samples=plan.num_samples)['']
        if 'jacobian' in plan.methods:
            rows['jacobian'] = self._predict(batches[: plan.num_jacobian], method='jacobian')['']
        if {'confidence', 'propagated', 'dropout'} & set(plan.methods):
            self._propagated(batches, level, rows)
        wanted = [row for method in plan.methods for row in METHODS[method]]
        truth = rows.get('monte_carlo')
        return {
            'noise_std': level,
            'map': self._map(corruption),
            'methods': {row: judge(rows[row], truth if row != 'confidence' else None) for row in wanted},
        }

    def _propagated(self, batches: Sequence[dict[str, Any]], level: float, rows: dict[str, Records]) -> None:
        """Run the methods that use calibrated gains, and keep the detections without deviations."""
        plan = self.plan
        self._calibrate(level)
        passes = plan.dropout_samples if 'dropout' in plan.methods else 0
        found = self._predict(batches, method='propagated', dropout_samples=passes)
        rows['propagated'] = found['_data' if passes else '']
        if passes:
            rows['dropout'], rows['propagated + dropout'] = found['_model'], found['']
        rows['confidence'] = [without_deviations(image) for image in rows['propagated']]

    def _predict(self, batches: Sequence[dict[str, Any]], **options: Any) -> dict[str, Records]:
        """Return records by the suffix of their deviations: '', and the parts '_data' and '_model'."""
        model = self.model
        before = {name: getattr(model, name) for name in options}
        out: dict[str, Records] = {}
        try:
            for name, value in options.items():
                setattr(model, name, value)
            for batch in batches:
                with torch.no_grad():
                    (sample,) = model.test_step(batch)
                found = sample.pred_instances
                for suffix in ('', '_data', '_model') if options.get('dropout_samples') else ('',):
                    fields = sample.to_dict() | {'pred_instances': found.new()}
                    for name in ('bboxes', 'scores', 'labels'):
                        fields['pred_instances'].set_field(found[name], name)
                    for name in ('bboxes_std', 'scores_std'):
                        fields['pred_instances'].set_field(found[name + suffix], name)
                    out.setdefault(suffix, []).append(read_sample(fields, UncertaintyMetric().score_thr))
        finally:
            for name, value in before.items():
                setattr(model, name, value)
        return out

    def _calibrate(self, level: float) -> None:
        """Set the gains for a level of noise, fitted on images with Gaussian noise of that level."""
        if level not in self._gains:
            corruption = Corruption('gaussian', level)
            batches = [self._batch(self.fit, i, corruption) for i in spread(len(self.fit), self.plan.num_fit)]
            data = [self.model.data_preprocessor(batch, False) for batch in batches]
            height, width = (min(part['inputs'].shape[d] for part in data) for d in (2, 3))
            images = torch.cat([part['inputs'][:, :, :height, :width] for part in data])
            samples = [part['data_samples'][0] for part in data]
            for sample in samples:
                sample.set_metainfo({'img_shape': (height, width)})
            calibrate_detector(
                self.model, images, samples, normalised_variance(level, self.model.data_preprocessor),
                num_samples=self.plan.num_samples, seed=self.plan.seed, progress=False,
            )  # fmt: skip
            self._gains[level] = gains_of(self.model)
        self._set_gains(self._gains[level])

    def _set_gains(self, gains: Mapping[str, Tensor] | None) -> None:
        weights = {key: value for key, value in self.model.state_dict().items() if key not in gains_of(self.model)}
        self.model.load_state_dict(weights | dict(gains or {}))

    def _batch(self, dataset: Any, index: int, corruption: Corruption | None) -> dict[str, Any]:
        """Make an input of `test_step` from one image."""
        item = dataset[index]
        image = item['inputs']
        if corruption is not None:
            pixels = image.permute(1, 2, 0).numpy()
            image = torch.from_numpy(corruption(pixels, seed=self.plan.seed, index=index)).permute(2, 0, 1)
        return {'inputs': [image], 'data_samples': [item['data_samples']]}

    def _map(self, corruption: Corruption | None) -> float:
        """Compute the mAP over all images of the test set."""
        enabled, self.model.enabled = self.model.enabled, False
        try:
            for index in range(len(self.test)):
                batch = self._batch(self.test, index, corruption)
                with torch.no_grad():
                    self.evaluators.process(self.model.test_step(batch), batch)
        finally:
            self.model.enabled = enabled
        metrics = self.evaluators.evaluate(len(self.test))
        return float(next((value for key, value in metrics.items() if key.endswith('mAP')), math.nan))


def spread(length: int, number: int) -> list[int]:
    """Spread `number` indices evenly over a length."""
    return [i * length // number for i in range(number)]


def gains_of(model: torch.nn.Module) -> dict[str, Tensor]:
    """Copy what `calibrate_detector` and `fit_detector_errors` stored in the state dict."""
    state = model.state_dict()
    return {key: value.clone() for key, value in state.items() if is_fitted(key)}


def without_deviations(image: Image) -> Image:
    """Return a record as that of a detector without uncertainty."""
    return image | {name: np.zeros_like(image[name]) for name in ('bboxes_std', 'scores_std')}


def judge(records: Records, truth: Records | None) -> dict[str, dict[str, float]]:
    """Compute the numbers of one method: as it is ('raw'), and with the error fitted to ground truth ('fitted').

    For 'fitted', the images are split into every other one, and each half gets the error (`fit_errors`) of the other
    half. The error of a detector without deviations is then a constant.

    Args:
        records: Records of one image or more; 'fitted' needs two images, and two matched detections in each half.
        truth: Records of Monte Carlo with the same detections, of the same images or more; None for no comparison.
    """
    metric = UncertaintyMetric()
    raw = metric.measure(records)
    out = {'raw': {name: raw[name] for name in NUMBERS} | (ratios(records, truth) if truth else {})}
    halves = [records[0::2], records[1::2]]
    fitted: Records = []
    for judged, others in (halves, halves[::-1]):
        if not others:
            return out
        kept = [metric.match(image)[0] for image in others]
        residuals, std = (np.concatenate([part[name] for part in kept]) for name in ('residuals', 'std'))
        if len(residuals) < 2:
            return out
        error = fit_errors(residuals, std)
        fitted += [image | {'bboxes_std': total_std(image['bboxes_std'], error)} for image in judged]
    whole = metric.measure(fitted)
    out['fitted'] = {name: whole[name] for name in NUMBERS}
    return out


def ratios(records: Records, truth: Records) -> dict[str, float]:
    """Compute the median ratio to Monte Carlo's deviations, per coordinate and for the score; nan where none moves."""
    both = list(zip(records, truth, strict=False))
    names = coordinates(records[0]['bboxes'].shape[1])
    out = {}
    sure = np.concatenate([a['scores'] >= MIN_SCORE for a, _ in both])
    std, reference = (
        np.concatenate([np.column_stack([pair[i]['bboxes_std'], pair[i]['scores_std']]) for pair in both])[sure]
        for i in range(2)
    )
    for column, name in enumerate((*names, 'score')):
        moves = reference[:, column] > 0
        values = std[moves, column] / reference[moves, column]
        out[f'ratio_{name}'] = float(np.median(values)) if values.size else math.nan
    return out
