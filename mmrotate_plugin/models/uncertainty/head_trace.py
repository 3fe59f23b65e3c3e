"""Run an unmodified detector; record the outputs of its heads, and keep its detections differentiable."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from ...adf import Gaussian
from ...utils.contexts import temporary_attributes
from ...utils.errors import InputError
from .keep_graph import keep_graph
from .kept_rows import Reader

SUPPORTED = (
    'single-stage detectors with a convolutional head (RetinaNet, FCOS, ATSS and their rotated versions, S2ANet, '
    'R3Det) and two-stage ones with a box head (Faster R-CNN, Oriented R-CNN, RoI Transformer, ReDet)'
)


Outputs = list[tuple[Tensor, Tensor | None]]  # of heads: each value, and its variance if it was propagated


class UnsupportedDetector(InputError, TypeError):
    """A detector whose detections cannot be traced back to the outputs of its heads."""


@dataclass
class Heads:
    """The modules of a detector that make raw predictions.

    Attributes:
        final: The head whose outputs are decoded to boxes and scores.
        scored: Earlier stages of a cascade, whose scores, the first output, are averaged with those of the final one.
        constant: Heads whose boxes only say where the next head looks. They are taken as fixed: where they move, the
            next head corrects for it.
        regions: Modules that crop features of regions; empty for dense heads.
    """

    final: nn.Module
    scored: list[nn.Module] = field(default_factory=list)
    constant: list[nn.Module] = field(default_factory=list)
    regions: list[nn.Module] = field(default_factory=list)


def find_heads(detector: BaseModel) -> Heads:
    """Find the heads of a detector of mmdet or mmrotate.

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
    """The final head has answered, and its detections are not wanted."""


class Trace:
    """Run a detector and record the outputs of its heads.

    Args:
        detector: A detector of mmdet or mmrotate, with `predict(inputs, data_samples, rescale)`.

    Raises:
        UnsupportedDetector: If its heads are of no known kind.
    """

    def __init__(self, detector: BaseModel) -> None:
        self.detector = detector
        self.heads = find_heads(detector)
        self.readable = True  # until a reader could not follow the detections
        self.proposals: Any = None
        self.rois: list[Tensor] = []
        self.score_maps: list[Tensor | Gaussian] = []  # the levels of a dense head in the last `detect`

    def detect(
        self,
        x: Tensor | Gaussian,
        samples: Any,
        rescale: bool,
        *,
        end_to_end: bool = False,
        reader: Reader | None = None,
    ) -> tuple[Any, Outputs]:
        """Detect, and keep the detections differentiable, or let a reader follow them.

        Args:
            x: Normalised images, (B, C, H, W).
            samples: As `predict` takes them.
            rescale: Boxes in pixels of the original image.
            end_to_end: Differentiable with respect to x, which then requires gradients; else with respect to the
                outputs of the heads.
            reader: Follows the detections; they are not differentiable then.

        Returns:
            The samples with their `pred_instances`, and the outputs of the scored heads and the final head, flattened:
            pairs (leaf, variance), where the variance is None for plain tensors.
        """
        found: Outputs = []
        self.proposals, self.rois, self.score_maps = None, [], []

        def leaf(value: Tensor | Gaussian) -> Tensor:
            mean, var = _parts(value)
            made = mean if end_to_end else _constant(mean).requires_grad_(reader is None)
            found.append((made, var))
            return made if end_to_end else made.clone()  # heads may work in place

        def read(out: Any, reader: Reader) -> Any:
            new: Outputs = []
            _map(out, lambda value: new.append(_parts(value)))
            given = iter(reader.give([mean for mean, _ in new], [mean for mean, _ in found]))
            found.extend(new)
            return _map(out, lambda _: next(given))

        with ExitStack() as stack:

            def final(out: Any) -> Any:
                self._keep_scores(out)
                if reader is not None:
                    return read(out, reader)
                stack.enter_context(keep_graph())
                return _map(out, leaf)

            def scored(out: Any) -> Any:
                scores, *others = out
                return (_map(scores, leaf), *(_map(other, _constant) for other in others))

            stack.enter_context(self._hooks(final, scored))
            stack.enter_context(self._record())
            if reader is not None:
                stack.enter_context(reader.reading(self.heads.final))
            return self.detector.predict(x, samples, rescale=rescale), found

    def outputs(self, x: Tensor | Gaussian, samples: Any) -> list[Tensor | Gaussian]:
        """Run the heads on the regions of the last `detect`; their outputs, flattened as there.

        Raises:
            UnsupportedDetector: If the final head is not called.
        """
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

        def record(predict: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            self.proposals = predict(*args, **kwargs)
            return copy.copy(self.proposals)

        def look(module: nn.Module, args: tuple[Any, ...]) -> None:  # noqa: ARG001  signature of a hook
            self.rois.append(args[1])

        with self._proposing(record), _pre_hooks(self.heads.regions, look):
            yield

    @contextmanager
    def _replay(self) -> Iterator[None]:
        """Give the recorded proposals and regions instead of new ones."""
        rois = iter(self.rois)

        def replay(*args: Any, **kwargs: Any) -> Any:  # noqa: ARG001  as the method
            return copy.copy(self.proposals)

        def put(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG001  signature of a hook
            return (args[0], next(rois), *args[2:])

        with self._proposing(replay), _pre_hooks(self.heads.regions, put):
            yield

    def _proposing(self, function: Callable[..., Any]) -> AbstractContextManager[None]:
        """Let a function, given the method and its arguments, predict for the region proposal network, if any."""
        rpn = getattr(self.detector, 'rpn_head', None) if self.heads.regions else None
        if rpn is None:
            return nullcontext()
        return temporary_attributes(rpn, predict=partial(function, rpn.predict))


@contextmanager
def _pre_hooks(modules: list[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _parts(value: Tensor | Gaussian) -> tuple[Tensor, Tensor | None]:
    return (value.mu, value.v) if isinstance(value, Gaussian) else (value, None)


def _constant(value: Tensor | Gaussian) -> Tensor:
    """The mean, without a graph also where `detach` keeps it."""
    with torch.no_grad():
        return _parts(value)[0].clone()


def _map(out: Any, function: Callable[[Tensor | Gaussian], Any]) -> Any:
    """Replace the tensors and Gaussians in nested outputs; anything else, such as None, stays."""
    if isinstance(out, (Tensor, Gaussian)):
        return function(out)
    if isinstance(out, (list, tuple)):
        return type(out)(_map(part, function) for part in out)
    return out


def untraceable(head: nn.Module) -> str:
    """The message for boxes and scores that do not come from a head by differentiable steps."""
    return (
        f'the boxes and scores of {type(head).__name__} do not follow from its outputs by differentiable steps of '
        f'torch: supported are {SUPPORTED}'
    )
