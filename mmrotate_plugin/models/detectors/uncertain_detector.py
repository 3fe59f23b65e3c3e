"""A detector around a trained one whose detections carry standard deviations."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.model import BaseModel
from torch import Tensor, nn

from ...adf import Gaussian, accept_gains
from ...adf._eval_mode import eval_mode
from ...adf.dropout_sampling import sampled_dropout
from ...adf.gains import misfit
from ...adf.jacobian import variances
from ...registry import MODELS
from ...structures import bring_back, whole_input
from ...utils.typecheck import typed
from ..backbones.adf_resnet import CHOICES, ADFResNet
from ..uncertainty.data_samples import detach_detections, put_score_maps, put_stds, tensor_of, values_of, variance_of
from ..uncertainty.head_trace import Trace, UnsupportedDetector, named_errors, untraceable
from ..uncertainty.image_noise import ImageNoise
from ..uncertainty.linearization import Linearization, sharing_of
from ..uncertainty.loss_variance import boxes_with_variance, heteroscedastic_losses, plain_losses
from ..uncertainty.operator_rules import operator_rules

Outputs = list[tuple[Tensor, Tensor | None]]  # of heads: the value, and its variance if it was propagated

METHODS = ('propagated', 'jacobian', 'monte_carlo')
VARIANCES = tuple(name for name in CHOICES['variance'] if name != 'none')
GAIN = 'detection_gain'  # buffer: factors of the variances of box and score, (D,)
ERROR = 'detection_error'  # buffer: factor and constant that make a box's variance that of its error, (D - 1, 2)


@MODELS.register_module()
class UncertainDetector(BaseModel):
    r"""A trained detector whose detections say how sure they are, of boxes and scores.

    It holds the modules of the detector under their own names, so the checkpoint of the detector fits as it is, and
    its detections are those of the detector, to the bit: the variance goes beside them. `pred_instances` get

    - ``scores_std`` (N,) and ``bboxes_std`` (N, 4) or (N, 5): standard deviations of the scores and of the box's
      coordinates, in pixels (of the original image, where boxes are), radians for the angle;
    - with `dropout_samples`, their parts ``scores_std_data``, ``bboxes_std_data`` (noise of the image) and
      ``scores_std_model``, ``bboxes_std_model`` (Monte Carlo dropout): total variance = data + model.

    After `engine.uncertainty_errors.fit_detector_errors`, ``bboxes_std`` is that of the whole error, which a detector
    makes without noise too.

    How the noise of the image gets there is chosen by `method`:

    - 'propagated': one pass of assumed density filtering through backbone, neck and head (Loquercio, Segu &
      Scaramuzza, RA-L 2020), then the delta method through the box coder. `calibrate_detector` makes up for what it
      neglects.
    - 'jacobian': first order from the pixels on, :math:`\mathrm{Var}(y) = \sum_i (\partial y / \partial x_i)^2 v_i`, by
      one backward pass for each number of each detection. It needs no calibration, and takes long.
    - 'monte_carlo': `num_samples` passes with noise added to the image; the truth that the others approximate.

    The last two take the plain network, also of an ``ADFResNet(mean='adf')``, whose propagated detections are its own.
    In all of them the kept detections, their order, and for two-stage detectors the regions are taken as fixed. Noise
    can also make a detection appear or disappear; that is what `scores_std` tells.

    Args:
        detector: Config of a detector, or the detector itself: a single-stage one with a convolutional head or a
            two-stage one with a box head, of mmdet or mmrotate. Its backbone may be any that a `Gaussian` passes:
            ADFResNet, ReResNet, mmdet's ResNet.
        method: 'propagated', 'jacobian' or 'monte_carlo'.
        noise_std: Standard deviation of the image's noise in grey levels of the image that the network gets (after
            resizing): a number, one per channel, or 'estimate', to estimate it at each place from the image itself
            (`adf.estimate_noise`).
        noise_variance: Instead, variance in squared units of the normalised image, a number or one per channel. With
            neither, the noise of an `ADFResNet`.
        variance: For 'propagated': the rule for the variance, see `ADFResNet`, whose own choice is taken with None;
            'diagonal' for other backbones.
        num_samples: Passes of 'monte_carlo'.
        dropout_samples: Passes of Monte Carlo dropout, 0 for none; the detector has to drop something then, see
            `adf.predict`.
        chunk_size: Backward passes at a time for 'jacobian'.
        score_map: Also put ``score_std_map``, (h, w), the largest standard deviation of a score at each pixel of the
            network's input, into the data samples. Only with 'propagated'.
        enabled: False makes it the detector and nothing else, at no cost.
        seed: Of Monte Carlo's noise; the global random state is left alone.

    Raises:
        ValueError: For arguments out of range, two noises, or none.
        UnsupportedDetector: If the heads are of no known kind. When predicting: if boxes cannot be traced back to them.
        NoDropout: When predicting with `dropout_samples`, if there is nothing to sample.
        NoMomentRule: When predicting, for an operation without a moment rule; the message names it and the module.
    """

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
        for name, value, choices in (('method', method, METHODS), ('variance', variance, (None, *VARIANCES))):
            if value not in choices:
                raise ValueError(f'{name}={value!r} is unknown: use one of {", ".join(map(repr, choices))}')
        for name, value, least in (('num_samples', num_samples, 2), ('chunk_size', chunk_size, 1)):
            if value < least:
                raise ValueError(f'{name}={value} must be {least} or more')
        if dropout_samples < 0 or dropout_samples == 1:
            raise ValueError(f'dropout_samples={dropout_samples} must be 0 (none), or 2 or more')
        if score_map and method != 'propagated':
            raise ValueError(f"score_map=True needs method='propagated', not {method!r}, which has no maps of variance")
        if isinstance(detector, Mapping):
            detector = MMDET_MODELS.build(detector)
        self.__dict__['detector'] = detector  # not a child: its children are, under their own names
        for name, child in detector.named_children():
            setattr(self, name, child)
        self.trace = Trace(detector)
        self.method, self.variance = method, variance
        self.num_samples, self.dropout_samples, self.chunk_size = num_samples, dropout_samples, chunk_size
        self.score_map, self.enabled, self.seed = score_map, enabled, seed
        self.noise = ImageNoise(detector, noise_std, noise_variance)
        self._warned = False
        accept_gains(self)
        self._register_load_state_dict_pre_hook(_expect_buffers, with_module=True)

    def train(self, mode: bool = True) -> 'UncertainDetector':
        self.detector.train(mode)
        self.training = mode
        return self

    def init_weights(self) -> None:
        """Of the detector."""
        self.detector.init_weights()

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # detectors rename the keys of other versions here
        meta, _, *lists = args
        type(self.detector)._load_from_state_dict(self.detector, state, prefix, meta, False, *lists)
        super()._load_from_state_dict(state, prefix, *args)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Any:
        """As of mmdet's detectors: 'loss', 'predict' or 'tensor'."""
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        return self.detector(inputs, data_samples, mode=mode)

    def loss(self, inputs: Tensor, data_samples: Any) -> dict[str, Any]:
        """Losses of the detector; each `HeteroscedasticLoss` of its dense head gets the propagated variance.

        Without one, or with ``enabled=False``, it is the detector's training and costs nothing. `method` does not
        matter. The noise that is propagated is to be in the images: `AddNoise` puts it there.

        Args:
            inputs: (B, C, H, W), normalised.
            data_samples: With ground truth.

        Raises:
            UnsupportedDetector: If the loss is in a head that cannot hand it a variance.
        """
        if not self.enabled or not heteroscedastic_losses(self.detector):
            return self.detector(inputs, data_samples, mode='loss')
        x = self._gaussian(inputs, self.noise(inputs, data_samples))
        with boxes_with_variance(self.detector), self.propagating():
            return plain_losses(self.detector(x, data_samples, mode='loss'))

    def predict(self, inputs: Tensor, data_samples: Any, rescale: bool = True) -> Any:
        """Detections with standard deviations.

        Args:
            inputs: (B, C, H, W), normalised.
            data_samples: One for each image.
            rescale: Boxes in pixels of the original image instead of the network's input.

        Returns:
            The data samples, with `pred_instances`.
        """
        frame = data_samples if rescale else ()
        if not self.enabled:
            with whole_input(frame):
                found = self.detector.predict(inputs, data_samples, rescale=rescale)
        else:
            with torch.inference_mode(False), torch.no_grad():
                inputs = inputs.clone() if inputs.is_inference() else inputs
                variance = self.noise(inputs, data_samples)
                self._warn_of_misfit()
                with whole_input(frame):
                    found = self._predict(inputs, variance, data_samples, rescale)
        if rescale:
            bring_back(found)
        return found

    def _predict(self, inputs: Tensor, variance: Tensor, data_samples: Any, rescale: bool) -> Any:
        model = None
        if self.method == 'jacobian':
            found, data = self._by_jacobian(inputs, variance, data_samples, rescale)
            if self.dropout_samples:  # the same detections again
                found, _, line = self.linearize(inputs, variance, data_samples, rescale=rescale, propagated=False)
        elif self.method == 'propagated':
            found, outputs, line = self.linearize(inputs, variance, data_samples, rescale=rescale, propagated=True)
            data = self.detection_variance(line, outputs)
            if self.score_map:
                put_score_maps(found, self.trace.score_maps, inputs.shape[-2:])
        else:
            found, outputs, line = self.linearize(inputs, variance, data_samples, rescale=rescale, propagated=False)
            data = self.sampled(inputs, variance, data_samples, line, outputs, range(self.num_samples), self.seed)
        if self.dropout_samples:
            model = self._by_dropout(inputs, data_samples, line)
        put_stds(found, data, model, self._buffers.get(ERROR))
        return found

    def _warn_of_misfit(self) -> None:
        if self._warned or self.method != 'propagated':
            return
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
        """Detections, the outputs of the heads, and how the ones depend on the others.

        Args:
            inputs, variance: (B, C, H, W).
            samples: As of `predict`, which they are given to.
            propagated: The outputs have their variances.
            rescale: As of `predict`.

        Raises:
            UnsupportedDetector: If boxes or scores do not depend on the outputs.
        """
        x = self._gaussian(inputs, variance) if propagated else inputs
        passing = self.propagating() if propagated else self.plain()
        with passing, _frozen(self.detector), torch.enable_grad():
            found, outputs = self.trace.detect(x, samples, rescale, end_to_end=False)
            self._check_traced(found)
            values = values_of(found)
            boxes, labels = values[:, :-1], torch.cat([sample.pred_instances.labels for sample in found])
            sharing = sharing_of(boxes.detach(), labels, regions=bool(self.trace.heads.regions))
            line = Linearization(values, [leaf for leaf, _ in outputs], sharing)
        detach_detections(found)
        return found, [(leaf.detach(), var) for leaf, var in outputs], line

    def _by_jacobian(self, inputs: Tensor, variance: Tensor, samples: Any, rescale: bool) -> tuple[Any, Tensor]:
        with _frozen(self.detector), torch.enable_grad(), self.plain():
            leaf = inputs.detach().clone().requires_grad_()
            found, _ = self.trace.detect(leaf.clone(), samples, rescale, end_to_end=True)
            self._check_traced(found)
            values = values_of(found)
            data = leaf.new_zeros(0, 1)
            if len(values):
                data = variances(values.reshape(-1), leaf, variance, self.chunk_size)
        detach_detections(found)
        return found, data.sum(1).reshape(values.shape)

    def detection_variance(self, line: Linearization, outputs: Outputs) -> Tensor:
        """Variances of boxes and scores, (N, D + 1), from those of propagated outputs, with the gains."""
        data = line.variance([var for _, var in outputs])
        return data * self._buffers[GAIN].to(data) if GAIN in self._buffers else data

    def sampled(
        self,
        inputs: Tensor,
        variance: Tensor,
        samples: Any,
        line: Linearization,
        outputs: Outputs,
        passes: Iterable[int],
        seed: int,
    ) -> Tensor:
        """Variance over noisy images, (N, D + 1), of what the heads put out, with all covariances of the outputs.

        `passes` counts them, and may show a progress bar.
        """
        generator = torch.Generator(inputs.device).manual_seed(seed)
        std = variance.sqrt()

        def draw() -> Tensor:
            noise = torch.randn(std.shape, generator=generator, device=std.device, dtype=std.dtype)
            return inputs + std * noise

        with self.plain(), eval_mode(self.detector):
            return variance_of(
                line([a - b for a, (b, _) in zip(self.trace.outputs(draw(), samples), outputs, strict=True)])
                for _ in passes
            )

    def _by_dropout(self, inputs: Tensor, samples: Any, line: Linearization) -> Tensor:
        """Variance over dropped weights, the image as it is."""
        with self.plain(), torch.random.fork_rng([inputs.device] if inputs.device.type == 'cuda' else []):
            with eval_mode(self.detector):
                first = self.trace.outputs(inputs, samples)
            torch.manual_seed(self.seed)
            with sampled_dropout(self.detector) as check:

                def outputs() -> list[Tensor]:
                    out = self.trace.outputs(inputs, samples)
                    check()
                    return out

                return variance_of(
                    line([a - b for a, b in zip(outputs(), first, strict=True)]) for _ in range(self.dropout_samples)
                )

    def set_detection_gain(self, gain: Tensor | None) -> None:
        """Factors of the variances of box and score, (D + 1,); None takes them back."""
        self._buffers.pop(GAIN, None)
        if gain is not None:
            self.register_buffer(GAIN, gain)

    def set_detection_error(self, error: Tensor | None) -> None:
        """Factors and constants of the variances of boxes, (D, 2), see `fit_detector_errors`; None takes them back."""
        self._buffers.pop(ERROR, None)
        if error is not None:
            self.register_buffer(ERROR, error)

    def _check_traced(self, found: Any) -> None:
        found = [sample.pred_instances for sample in found if len(sample.pred_instances)]
        parts = [part for some in found for part in (tensor_of(some.bboxes), some.scores)]
        if not all(part.requires_grad for part in parts):
            raise UnsupportedDetector(untraceable(self.trace.heads.final))

    def _gaussian(self, inputs: Tensor, variance: Tensor) -> Gaussian:
        return Gaussian(inputs, variance, plain_mean=True, rule=self.rule)

    @contextmanager
    def propagating(self) -> Iterator[None]:
        """The detector takes a Gaussian; errors name the module that does not."""
        with ExitStack() as stack:
            backbone = getattr(self.detector, 'backbone', None)
            if isinstance(backbone, ADFResNet):
                stack.enter_context(_attributes(backbone, output='gaussian', variance=self.rule))
            stack.enter_context(named_errors(self.detector))
            stack.enter_context(operator_rules(self.detector))
            yield

    @contextmanager
    def plain(self) -> Iterator[None]:
        """An `ADFResNet` is a plain one."""
        backbone = getattr(self.detector, 'backbone', None)
        plain = {'mean': 'plain', 'output': 'mean'} if isinstance(backbone, ADFResNet) else {}
        with _attributes(backbone, **plain):
            yield


@contextmanager
def _attributes(module: Any, **values: Any) -> Iterator[None]:
    """Other values of plain attributes, for a while."""
    before = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Parameters need no gradient, so that the graph holds the post-processing alone."""
    learning = [p for p in module.parameters() if p.requires_grad]
    try:
        for p in learning:
            p.requires_grad_(False)
        yield
    finally:
        for p in learning:
            p.requires_grad_(True)


def _expect_buffers(module: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Take up the gains and errors of detections in a state dict, or drop those that it has not."""
    some = next(module.parameters(), torch.empty(0))
    for name in (GAIN, ERROR):
        module._buffers.pop(name, None)
        if prefix + name in state:
            module.register_buffer(name, torch.ones_like(state[prefix + name], device=some.device))
