"""A wrapper of a trained detector that adds standard deviations to its detections."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.model import BaseModel
from torch import Tensor, nn

from ...adf import Gaussian, accept_gains
from ...adf.gains import misfit
from ...registry import MODELS
from ...structures import bring_back, whole_input
from ...utils.typecheck import typed
from ..backbones.adf_resnet import CHOICES, ADFResNet
from ..uncertainty import methods
from ..uncertainty.contexts import propagating, without_variance
from ..uncertainty.data_samples import put_score_maps, put_stds
from ..uncertainty.fitted_buffers import ERROR, GAIN, expect_fitted, set_fitted
from ..uncertainty.head_trace import Outputs, Trace
from ..uncertainty.image_noise import ImageNoise
from ..uncertainty.linearization import Linearization
from ..uncertainty.loss_variance import boxes_with_variance, heteroscedastic_losses, plain_losses

METHODS = ('propagated', 'jacobian', 'monte_carlo')
VARIANCES = tuple(name for name in CHOICES['variance'] if name != 'none')


@MODELS.register_module()
class UncertainDetector(BaseModel):
    r"""Wrap a trained detector so that its detections carry standard deviations of boxes and scores.

    It holds the modules of the detector under their own names, so the checkpoint of the detector fits as it is.
    Boxes, scores and labels are those of the detector, to the bit. `pred_instances` also get

    - ``scores_std`` (N,) and ``bboxes_std`` (N, 4) or (N, 5): standard deviations of the scores and of the box's
      coordinates, in pixels (of the original image if boxes are), radians for the angle;
    - with `dropout_samples`, their parts ``scores_std_data``, ``bboxes_std_data`` (noise of the image) and
      ``scores_std_model``, ``bboxes_std_model`` (Monte Carlo dropout): total variance = data + model.

    After `evaluation.error_fit.fit_detector_errors`, ``bboxes_std`` covers the whole error, also what is not noise.

    `method` chooses how the noise of the image reaches the detections:

    - 'propagated': one pass of assumed density filtering through backbone, neck and head (Loquercio, Segu &
      Scaramuzza, RA-L 2020), then the delta method through the box coder. `calibrate_detector` corrects for the
      covariances that it neglects.
    - 'jacobian': first order from the pixels, :math:`\mathrm{Var}(y) = \sum_i (\partial y / \partial x_i)^2 v_i`, by
      one backward pass for each number of each detection. It needs no calibration, and is slow.
    - 'monte_carlo': `num_samples` passes with noise added to the image: the reference that the others approximate.

    The last two use the plain network, also of an ``ADFResNet(mean='adf')``. All take the kept detections, their order,
    and the regions of two-stage detectors as fixed. Whether noise makes a detection disappear, `scores_std` tells.

    Args:
        detector: Config of a detector, or the detector itself: a single-stage one with a convolutional head or a
            two-stage one with a box head, of mmdet or mmrotate. Its backbone may be any that a `Gaussian` passes:
            ADFResNet, ReResNet, mmdet's ResNet.
        method: 'propagated', 'jacobian' or 'monte_carlo'.
        noise_std: Standard deviation of the image's noise, in grey levels of the image that the network gets (after
            resizing): a number, one per channel, or 'estimate' to estimate it at each place from the image itself
            (`adf.estimate_noise`).
        noise_variance: Alternatively, the variance in squared units of the normalised image, a number or one per
            channel. Without either, the noise of an `ADFResNet` is used.
        variance: Rule for the variance of 'propagated', see `ADFResNet`. None takes that of an `ADFResNet`, and
            'diagonal' for other backbones.
        num_samples: Passes of 'monte_carlo'.
        dropout_samples: Passes of Monte Carlo dropout, 0 for none; the detector must contain dropout then, see
            `adf.predict`.
        chunk_size: Backward passes of 'jacobian' that run at a time.
        score_map: Also put ``score_std_map``, (h, w), the largest standard deviation of a score at each pixel of the
            network's input, into the data samples. Only with 'propagated'.
        enabled: False makes it the plain detector, at no cost.
        seed: Seed of the Monte Carlo noise and of dropout; the global random state is left alone.

    Shape:
        - Input: (B, C, H, W), normalised, and a data sample for each image.
        - Output: the data samples, with `pred_instances` as above.

    Raises:
        ValueError: For arguments out of range, two noises, or none.
        UnsupportedDetector: If the heads are of no known kind. When predicting: if boxes cannot be traced back to them.
        NoDropout: When predicting with `dropout_samples`, if there is nothing to drop.
        NoMomentRule: When predicting, for an operation without a moment rule; the message names it and the module.
    """

    detector: BaseModel

    @typed
    def __init__(
        self,
        detector: Mapping[str, Any] | nn.Module,
        *,
        method: str = 'propagated',
        noise_std: float | Sequence[float] | str | None = None,
        noise_variance: float | Sequence[float] | None = None,
        variance: str | None = None,
        num_samples: int = 100,
        dropout_samples: int = 0,
        chunk_size: int = 8,
        score_map: bool = False,
        enabled: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_arguments(method, variance, num_samples, dropout_samples, chunk_size, score_map)
        built: BaseModel = MMDET_MODELS.build(detector) if isinstance(detector, Mapping) else detector
        self.__dict__['detector'] = built  # not a child: its children are, under their own names
        for name, child in built.named_children():
            setattr(self, name, child)
        self.trace = Trace(built)
        self.method, self.variance = method, variance
        self.num_samples, self.dropout_samples, self.chunk_size = num_samples, dropout_samples, chunk_size
        self.score_map, self.enabled, self.seed = score_map, enabled, seed
        self.noise = ImageNoise(built, noise_std, noise_variance)
        self._warned = False
        accept_gains(self)
        self._register_load_state_dict_pre_hook(expect_fitted, with_module=True)

    def train(self, mode: bool = True) -> 'UncertainDetector':
        """Set the mode of the detector, by its own rules."""
        self.detector.train(mode)
        self.training = mode
        return self

    def init_weights(self) -> None:
        """Initialise the detector."""
        self.detector.init_weights()

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # detectors rename the keys of other versions here
        meta, _, *lists = args
        type(self.detector)._load_from_state_dict(self.detector, state, prefix, meta, False, *lists)
        super()._load_from_state_dict(state, prefix, *args)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Any:
        """Run the mode of mmdet's detectors: 'loss', 'predict' or 'tensor'."""
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        return self.detector(inputs, data_samples, mode=mode)

    def loss(self, inputs: Tensor, data_samples: Any) -> dict[str, Any]:
        """Compute the detector's losses; each `HeteroscedasticLoss` of its dense head gets the propagated variance.

        Without such a loss, or with ``enabled=False``, this is the detector's own training, at no cost. `method` does
        not matter. The images must contain the noise that is propagated: `AddNoise` adds it.

        Args:
            inputs: (B, C, H, W), normalised.
            data_samples: With ground truth.

        Raises:
            UnsupportedDetector: If the loss is in a head that cannot hand it a variance.
        """
        if not self.enabled or not heteroscedastic_losses(self.detector):
            return self.detector(inputs, data_samples, mode='loss')
        x = self.gaussian(inputs, self.noise(inputs, data_samples))
        with boxes_with_variance(self.detector), self.propagating():
            return plain_losses(self.detector(x, data_samples, mode='loss'))

    def predict(self, inputs: Tensor, data_samples: Any, rescale: bool = True) -> Any:
        """Detect, with standard deviations.

        Args:
            inputs: (B, C, H, W), normalised.
            data_samples: One for each image.
            rescale: Boxes in pixels of the original image instead of the network's input.

        Returns:
            The data samples, with `pred_instances`.
        """
        with whole_input(data_samples if rescale else ()):
            if self.enabled:
                self._warn_of_misfit()
                with torch.inference_mode(False), torch.no_grad():
                    found = _detect(self, inputs.clone() if inputs.is_inference() else inputs, data_samples, rescale)
            else:
                found = self.detector.predict(inputs, data_samples, rescale=rescale)
        if rescale:
            bring_back(found)
        return found

    def _warn_of_misfit(self) -> None:
        if self.method == 'propagated' and not self._warned:
            self._warned = True
            if (text := misfit(self, self.noise.variance, self.rule)) is not None:
                warnings.warn(f'{text} (calibrate_detector)', stacklevel=4)

    @property
    def rule(self) -> str:
        """The rule for the variance: this detector's, else that of its `ADFResNet`, else 'diagonal'."""
        backbone = getattr(self.detector, 'backbone', None)
        own = backbone.variance if isinstance(backbone, ADFResNet) else 'diagonal'
        return self.variance or ('diagonal' if own == 'none' else own)

    def linearize(
        self, inputs: Tensor, variance: Tensor, samples: Any, *, propagated: bool, rescale: bool = False
    ) -> tuple[Any, Outputs, Linearization]:
        """Detect, and differentiate the detections: `methods.linearize`, the outputs with variances if `propagated`."""
        if propagated:
            with self.propagating():
                return methods.linearize(self.trace, self.gaussian(inputs, variance), samples, rescale)
        with without_variance(self.detector):
            return methods.linearize(self.trace, inputs, samples, rescale)

    def detection_variance(self, line: Linearization, outputs: Outputs) -> Tensor:
        """Variances of boxes and scores, (N, D + 1), from those of propagated outputs, times the fitted gains."""
        data = line.variance([var for _, var in outputs])
        return data * self._buffers[GAIN].to(data) if GAIN in self._buffers else data

    def set_detection_gain(self, gain: Tensor | None) -> None:
        """Set the factors of the variances of box and score, (D + 1,); None removes them."""
        set_fitted(self, GAIN, gain)

    def set_detection_error(self, error: Tensor | None) -> None:
        """Set factors and constants of the variances of boxes, (D, 2), see `fit_detector_errors`; None removes them."""
        set_fitted(self, ERROR, error)

    def gaussian(self, inputs: Tensor, variance: Tensor) -> Gaussian:
        """The images, (B, C, H, W), as a value with a variance, as this detector propagates it."""
        return Gaussian(inputs, variance, plain_mean=True, rule=self.rule)

    def propagating(self) -> AbstractContextManager[None]:
        """Temporarily let the detector take a `Gaussian`; errors name the module that cannot."""
        return propagating(self.detector, self.rule)


def _detect(model: UncertainDetector, inputs: Tensor, samples: Any, rescale: bool) -> Any:
    """Detect by the method of a model, and put the standard deviations into the samples."""
    variance = model.noise(inputs, samples)
    trace, by_weights = model.trace, None
    if model.method == 'jacobian':
        found, data = methods.from_pixels(trace, inputs, variance, samples, rescale, model.chunk_size)
        if model.dropout_samples:  # the same detections again
            found, _, line = model.linearize(inputs, variance, samples, rescale=rescale, propagated=False)
    elif model.method == 'propagated':
        found, outputs, line = model.linearize(inputs, variance, samples, rescale=rescale, propagated=True)
        data = model.detection_variance(line, outputs)
        if model.score_map:
            put_score_maps(found, trace.score_maps, (inputs.shape[2], inputs.shape[3]))
    else:
        found, outputs, line = model.linearize(inputs, variance, samples, rescale=rescale, propagated=False)
        passes = range(model.num_samples)
        data = methods.sampled(trace, inputs, variance, samples, line, outputs, passes, model.seed)
    if model.dropout_samples:
        by_weights = methods.by_dropout(trace, inputs, samples, line, model.dropout_samples, model.seed)
    put_stds(found, data, by_weights, model._buffers.get(ERROR))
    return found


def _check_arguments(
    method: str, variance: str | None, num_samples: int, dropout_samples: int, chunk_size: int, score_map: bool
) -> None:
    choices: Sequence[tuple[str, str | None, tuple[str | None, ...]]] = (
        ('method', method, METHODS),
        ('variance', variance, (None, *VARIANCES)),
    )
    for name, value, known in choices:
        if value not in known:
            raise ValueError(f'{name}={value!r} is unknown: use one of {", ".join(map(repr, known))}')
    for name, count, least in (('num_samples', num_samples, 2), ('chunk_size', chunk_size, 1)):
        if count < least:
            raise ValueError(f'{name}={count} must be {least} or more')
    if dropout_samples < 0 or dropout_samples == 1:
        raise ValueError(f'dropout_samples={dropout_samples} must be 0 (none), or 2 or more')
    if score_map and method != 'propagated':
        raise ValueError(f"score_map=True needs method='propagated', not {method!r}, which has no maps of variance")
