"""One pass of an unmodified detector, watched: what its heads put out, and detections that can be differentiated."""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...adf import Gaussian, NoMomentRule

SUPPORTED = (
    'single-stage detectors with a convolutional head (RetinaNet, FCOS, ATSS and their rotated versions, S2ANet, '
    'R3Det) and two-stage ones with a box head (Faster R-CNN, Oriented R-CNN, RoI Transformer, ReDet)'
)


class UnsupportedDetector(TypeError):
    """A detector whose detections cannot be traced back to the outputs of its heads."""


@dataclass
class Heads:
    """The modules of a detector that put out raw predictions.

    Attributes:
        final: Boxes and scores are decoded from its outputs.
        scored: Earlier stages of a cascade, whose scores, the first output, are averaged with those of the final one.
        constant: Those whose boxes only say where the next one looks: taken as they are, since the next one corrects
            for it where they move.
        regions: What cuts features out for regions; empty for dense heads.
    """

    final: nn.Module
    scored: list[nn.Module] = field(default_factory=list)
    constant: list[nn.Module] = field(default_factory=list)
    regions: list[nn.Module] = field(default_factory=list)


def find_heads(detector: nn.Module) -> Heads:
    """The heads of a detector.

    Raises:
        UnsupportedDetector: If there are none of a known kind.
    """
    roi_head = getattr(detector, 'roi_head', None)
    if roi_head is not None and getattr(roi_head, 'bbox_head', None) is not None:
        if getattr(roi_head, 'with_mask', False):
            raise UnsupportedDetector(f'{type(detector).__name__} has a mask head: supported are {SUPPORTED}')
        heads, regions = (
            list(part) if isinstance(part, nn.ModuleList) else [part]
            for part in (roi_head.bbox_head, roi_head.bbox_roi_extractor)
        )
        rpn = [detector.rpn_head] if getattr(detector, 'rpn_head', None) is not None else []
        return Heads(heads[-1], scored=heads[:-1], constant=rpn, regions=regions)
    if getattr(detector, 'bbox_head_refine', None) is not None:
        refine = list(detector.bbox_head_refine)
        return Heads(refine[-1], constant=[detector.bbox_head_init, *refine[:-1]])
    if isinstance(getattr(detector, 'bbox_head', None), nn.Module):
        return Heads(detector.bbox_head)
    raise UnsupportedDetector(f'{type(detector).__name__} has no head of a known kind: supported are {SUPPORTED}')


class _Stop(Exception):
    """The final head has answered; its detections are not wanted."""


class _KeepGraph(TorchFunctionMode):
    """Heads detach what they decode; here they keep the graph."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.detach:
            return args[0]
        return func(*args, **(kwargs or {}))


class Trace:
    """Runs a detector and keeps what its heads put out.

    Args:
        detector: Of mmdet or mmrotate, with `predict(inputs, data_samples, rescale)`.
    """

    def __init__(self, detector: nn.Module) -> None:
        self.detector = detector
        self.heads = find_heads(detector)
        self.proposals: Any = None
        self.rois: list[Tensor] = []
        self.score_maps: list[Tensor | Gaussian] = []  # of the last `detect`: a dense head's, in levels

    def detect(self, x: Tensor | Gaussian, samples: Any, rescale: bool, *, end_to_end: bool) -> tuple[Any, list[Any]]:
        """Detections that can be differentiated.

        Args:
            x: Normalised images, (B, C, H, W).
            samples: As `predict` takes them.
            rescale: Boxes in pixels of the original image.
            end_to_end: Differentiable with respect to x, which then requires gradients; else with respect to what the
                heads put out.

        Returns:
            The samples with their `pred_instances`, and the outputs of the scored heads and the final head, flattened:
            pairs (leaf, variance), the variance None for plain tensors.
        """
        found: list[tuple[Tensor, Tensor | None]] = []
        self.proposals, self.rois, self.score_maps = None, [], []

        def leaf(value: Tensor | Gaussian) -> Tensor:
            mean, var = (value.mu, value.v) if isinstance(value, Gaussian) else (value, None)
            made = mean if end_to_end else _constant(mean).requires_grad_()
            found.append((made, var))
            return made if end_to_end else made.clone()  # heads may work in place

        with ExitStack() as stack:

            def final(out: Any) -> Any:
                self._keep_scores(out)
                out = _map(out, leaf)
                stack.enter_context(_KeepGraph())
                return out

            def scored(out: Any) -> Any:
                scores, *others = out
                return (_map(scores, leaf), *(_map(other, _constant) for other in others))

            stack.enter_context(self._hooks(final, scored))
            stack.enter_context(self._record())
            return self.detector.predict(x, samples, rescale=rescale), found

    def outputs(self, x: Tensor | Gaussian, samples: Any) -> list[Tensor | Gaussian]:
        """What the heads put out, for the regions of the last `detect`; flattened as there."""
        found: list[Tensor | Gaussian] = []

        def keep(value: Tensor | Gaussian) -> Tensor:
            found.append(value)
            return _constant(value)

        def final(out: Any) -> Any:
            _map(out, keep)
            raise _Stop

        def scored(out: Any) -> Any:
            scores, *others = out
            return (_map(scores, keep), *(_map(other, _constant) for other in others))

        with self._hooks(final, scored), self._replay():
            try:
                self.detector.predict(x, samples, rescale=False)
            except _Stop:
                return found
        raise UnsupportedDetector(untraceable(self.heads.final))

    def _hold(self, out: Any) -> Any:
        self._keep_scores(out)
        return _map(out, _constant)

    def _keep_scores(self, out: Any) -> None:
        if isinstance(out[0], (list, tuple)):
            self.score_maps = list(out[0])

    @contextmanager
    def _hooks(self, final: Callable[[Any], Any], scored: Callable[[Any], Any]) -> Iterator[None]:
        kinds = [([self.heads.final], final), (self.heads.scored, scored)]
        kinds.append((self.heads.constant, self._hold))
        handles = [
            head.register_forward_hook(lambda module, args, out, function=function: function(out))  # noqa: ARG005
            for some, function in kinds
            for head in some
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _record(self) -> Iterator[None]:
        """Keep the proposals and the regions of each stage."""
        rpn = getattr(self.detector, 'rpn_head', None) if self.heads.regions else None

        def predict(*args: Any, **kwargs: Any) -> Any:
            self.proposals = type(rpn).predict(rpn, *args, **kwargs)
            return copy.copy(self.proposals)

        def look(module: nn.Module, args: tuple[Any, ...]) -> None:  # noqa: ARG001  signature of a hook
            self.rois.append(args[1])

        with _method(rpn, 'predict', predict), _pre_hooks(self.heads.regions, look):
            yield

    @contextmanager
    def _replay(self) -> Iterator[None]:
        """The recorded proposals and regions in place of new ones."""
        rpn = getattr(self.detector, 'rpn_head', None) if self.heads.regions else None
        rois = iter(self.rois)

        def put(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG001  signature of a hook
            return (args[0], next(rois), *args[2:])

        def predict(*args: Any, **kwargs: Any) -> Any:  # noqa: ARG001  as the method
            return copy.copy(self.proposals)

        with _method(rpn, 'predict', predict), _pre_hooks(self.heads.regions, put):
            yield


@contextmanager
def _method(module: nn.Module | None, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Another method for one module, for a while."""
    if module is None:
        yield
        return
    setattr(module, name, function)
    try:
        yield
    finally:
        delattr(module, name)


@contextmanager
def _pre_hooks(modules: list[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _constant(value: Tensor | Gaussian) -> Tensor:
    """The mean, without a graph also where `detach` keeps it."""
    with torch.no_grad():
        return (value.mu if isinstance(value, Gaussian) else value).clone()


def _map(out: Any, function: Callable[[Tensor | Gaussian], Any]) -> Any:
    """`out` with its tensors and Gaussians replaced; other things, None among them, stay."""
    if isinstance(out, (Tensor, Gaussian)):
        return function(out)
    if isinstance(out, (list, tuple)):
        return type(out)(_map(part, function) for part in out)
    return out


def untraceable(head: nn.Module) -> str:
    """What to say where boxes and scores do not come from a head by differentiable steps."""
    return (
        f'the boxes and scores of {type(head).__name__} do not follow from its outputs by differentiable steps of '
        f'torch: supported are {SUPPORTED}'
    )


@contextmanager
def named_errors(model: nn.Module) -> Iterator[None]:
    """Errors of a pass with Gaussians name the module that they come from.

    Raises:
        NoMomentRule: In place of that of an operation, and of the errors of compiled operators, which know no Gaussian.
    """
    try:
        yield
    except NoMomentRule as error:
        raise NoMomentRule(f'{_where(model, error)}: {error}') from error
    except (TypeError, AttributeError) as error:
        if isinstance(error, UnsupportedDetector) or 'Gaussian' not in str(error):
            raise
        raise NoMomentRule(
            f'{_where(model, error)} cannot take a Gaussian ({error}): it is made of an operator without a rule. '
            'Write one in mmrotate_plugin/models/uncertainty/operator_rules.py'
        ) from error


def _where(model: nn.Module, error: BaseException) -> str:
    """The innermost module of the model in which an error was raised."""
    names = {module: name for name, module in model.named_modules()}
    found, trace = model, error.__traceback__
    while trace is not None:
        here = trace.tb_frame.f_locals.get('self')
        if isinstance(here, nn.Module) and here in names:
            found = here
        trace = trace.tb_next
    return f"module '{names[found]}' ({type(found).__name__})" if names[found] else type(found).__name__
