"""Training with the propagated variance: which outputs of a dense head keep theirs on the way to their losses."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from ...adf import Gaussian, NoMomentRule
from ..losses import HeteroscedasticLoss
from .head_trace import UnsupportedDetector

# what heads put out, by the name of the class or of one above it: the loss that takes each output, None for others
OUTPUTS: Mapping[str, tuple[str | None, ...]] = {
    'RotatedFCOSHead': (None, 'loss_bbox', 'loss_angle', None),
    'FCOSHead': (None, 'loss_bbox', None),
    'ATSSHead': (None, 'loss_bbox', None),
    'RetinaHead': (None, 'loss_bbox'),
}
SUPPORTED = (
    'the dense heads of RetinaNet, FCOS and ATSS, of rotated RetinaNet, and of rotated FCOS with use_hbbox_loss=True'
)


def heteroscedastic_losses(model: nn.Module) -> dict[str, HeteroscedasticLoss]:
    """Those of a model, by name."""
    return {name: part for name, part in model.named_modules() if isinstance(part, HeteroscedasticLoss)}


@contextmanager
def boxes_with_variance(detector: nn.Module) -> Iterator[None]:
    """While open, a head hands variances to its heteroscedastic losses, and means to the others.

    Raises:
        UnsupportedDetector: If such a loss is anywhere else than in `bbox_head` of a kind that is supported, or the
            head does something with a prediction, on the way to its loss, that has no moment rule.
    """
    head = getattr(detector, 'bbox_head', None)
    for name in heteroscedastic_losses(detector):
        place, _, own = name.rpartition('.')
        if place != 'bbox_head' or own not in (outputs_of(head) or ()):
            owner = detector.get_submodule(place) if place else detector
            raise UnsupportedDetector(
                f"'{name}' of {type(owner).__name__} is a HeteroscedasticLoss, which gets no variance there: supported "
                f'are loss_bbox, and loss_angle where there is one, of {SUPPORTED}'
            )
    losses = [isinstance(getattr(head, name or '', None), HeteroscedasticLoss) for name in outputs_of(head) or ()]
    # rotated FCOS decodes the angle into the box, unless the two have losses of their own
    if not getattr(head, 'use_hbbox_loss', True) and losses[1]:
        losses[2] = True

    def choose(module: nn.Module, args: Any, out: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG001  a hook's
        return tuple(_levels(part, _mean) if not keep else part for part, keep in zip(out, losses, strict=True))

    handle = head.register_forward_hook(choose)
    try:
        yield
    except NoMomentRule as error:
        raise UnsupportedDetector(
            f'{type(head).__name__} cannot hand its variances to a HeteroscedasticLoss: {error}; supported are '
            f'{SUPPORTED}'
        ) from error
    finally:
        handle.remove()


def outputs_of(head: nn.Module | None) -> tuple[str | None, ...] | None:
    """The losses that take the outputs of a head, None for a head of another kind."""
    for kind in type(head).__mro__:
        if kind.__name__ in OUTPUTS:
            return OUTPUTS[kind.__name__]
    return None


def plain_losses(losses: Mapping[str, Any]) -> dict[str, Any]:
    """Without variances: heads put out a sum of predictions where there is nothing to learn from."""
    return {name: _levels(value, _mean) for name, value in losses.items()}


def _mean(value: Any) -> Any:
    return value.mu if isinstance(value, Gaussian) else value


def _levels(value: Any, function: Callable[[Any], Any]) -> Any:
    return type(value)(function(part) for part in value) if isinstance(value, (list, tuple)) else function(value)
