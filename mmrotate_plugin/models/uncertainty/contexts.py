"""What a pass with uncertainty changes about a detector, and takes back afterwards."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mmengine.model import BaseModel
from torch import nn

from ...adf import NoMomentRule
from ...utils.contexts import temporary_attributes
from ..backbones.adf_resnet import ADFResNet
from .head_trace import UnsupportedDetector
from .operator_rules import operator_rules


@contextmanager
def propagating(detector: BaseModel, rule: str) -> Iterator[None]:
    """Let a detector take a `Gaussian`; errors name the module that cannot.

    Args:
        detector: A detector of mmdet or mmrotate.
        rule: For the variance, given to an `ADFResNet`.
    """
    backbone = getattr(detector, 'backbone', None)
    with ExitStack() as stack:
        if isinstance(backbone, ADFResNet):
            stack.enter_context(temporary_attributes(backbone, output='gaussian', variance=rule))
        stack.enter_context(named_errors(detector))
        stack.enter_context(operator_rules(detector))
        yield


@contextmanager
def without_variance(detector: BaseModel) -> Iterator[None]:
    """Run an `ADFResNet` in a detector as the plain network that it is made of."""
    backbone = getattr(detector, 'backbone', None)
    plain = {'mean': 'plain', 'output': 'mean'} if isinstance(backbone, ADFResNet) else {}
    with temporary_attributes(backbone, **plain):
        yield


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Switch off the gradients of all parameters, so that the graph holds the post-processing alone."""
    learning = [p for p in module.parameters() if p.requires_grad]
    try:
        for p in learning:
            p.requires_grad_(False)
        yield
    finally:
        for p in learning:
            p.requires_grad_(True)


@contextmanager
def named_errors(model: nn.Module) -> Iterator[None]:
    """Let the errors of a pass with Gaussians name the module that they come from.

    Raises:
        NoMomentRule: Instead of that of an operation, and of the errors of compiled operators that got a Gaussian.
    """
    try:
        yield
    except NoMomentRule as error:
        raise NoMomentRule(f'{_where(model, error)}: {error}') from error
    except (TypeError, AttributeError) as error:
        if isinstance(error, UnsupportedDetector) or 'Gaussian' not in str(error):
            raise
        raise NoMomentRule(
            f'{_where(model, error)} cannot take a Gaussian ({error}): it contains an operator without a rule. '
            'Write one in mmrotate_plugin/models/uncertainty/operator_rules.py'
        ) from error


def _where(model: nn.Module, error: BaseException) -> str:
    """Name the innermost module of the model in which an error was raised."""
    names = {module: name for name, module in model.named_modules()}
    found, trace = model, error.__traceback__
    while trace is not None:
        here = trace.tb_frame.f_locals.get('self')
        if isinstance(here, nn.Module) and here in names:
            found = here
        trace = trace.tb_next
    return f"module '{names[found]}' ({type(found).__name__})" if names[found] else type(found).__name__
