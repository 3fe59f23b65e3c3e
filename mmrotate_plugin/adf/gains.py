"""Keep variance gains: factors of the variances that modules output, fitted by `calibrate`.

A gain is a buffer of the module whose output it scales, so it is saved and moved with the network, together with the
noise and the rule of the fit. It costs one multiplication per value.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .gaussian import VARIANCE_RULES, Gaussian

GAIN = 'variance_gain'  # buffer of a module: factor of its output's variance, (C, 1, 1) or similar
NOISE = 'variance_gain_noise'  # buffer of the model: the noise variance of the fit, () or (C,)
RULE = 'variance_gain_rule'  # buffer of the model: the rule of the fit, an index of VARIANCE_RULES
FAR_OFF = 2.0  # noise variances that differ by more than this factor need another calibration


def is_gain(key: str) -> bool:
    """Tell whether a key of a state dict belongs to a gain, or to the noise or rule of its fit."""
    return key.rpartition('.')[2] in (GAIN, NOISE, RULE)


def set_gain(module: nn.Module, gain: Tensor | None) -> None:
    """Multiply the variance of a module's output, a `Gaussian` or a pair of mean and variance.

    Args:
        module: A module that outputs one Gaussian. Plain tensors pass unchanged.
        gain: Factor that broadcasts with the output: (C, 1, 1) for maps, (C,) for vectors. None removes the gain.
    """
    module._buffers.pop(GAIN, None)
    if gain is not None:
        module.register_buffer(GAIN, gain)
        if _apply_gain not in module._forward_hooks.values():
            module.register_forward_hook(_apply_gain)


def remove_gains(model: nn.Module) -> None:
    """Remove all gains: the moment rules act alone again, and the state dict has no extra keys."""
    for module in model.modules():
        set_gain(module, None)
        for name in (NOISE, RULE):
            module._buffers.pop(name, None)
        for key in [key for key, hook in module._forward_hooks.items() if hook is _apply_gain]:
            del module._forward_hooks[key]


def accept_gains(model: nn.Module) -> None:
    """Let a network load the gains of a state dict; loading one without gains removes them.

    Without this call, the gains of a calibrated checkpoint are unexpected keys. `ADFResNet` and the paper's
    classifiers make it themselves.
    """
    if _expect_gains not in [getattr(hook, 'hook', hook) for hook in model._load_state_dict_pre_hooks.values()]:
        model._register_load_state_dict_pre_hook(_expect_gains, with_module=True)


def gain_noise(model: nn.Module) -> Tensor | None:
    """Return the noise variance of a network's calibration, () or (C,); None if it is not calibrated."""
    return model._buffers.get(NOISE)


def gain_rule(model: nn.Module) -> str | None:
    """Return the variance rule of a network's calibration; None if it is not calibrated."""
    index = model._buffers.get(RULE)
    return None if index is None else VARIANCE_RULES[int(index)]


def set_origin(model: nn.Module, noise: Tensor, rule: str) -> None:
    """Store the noise variance, () or (C,), and the rule that the gains of a network were fitted at."""
    model.register_buffer(NOISE, noise)
    model.register_buffer(RULE, torch.tensor(VARIANCE_RULES.index(rule), device=noise.device))


def misfit(model: nn.Module, noise_variance: float | Sequence[float] | None, rule: str) -> str | None:
    """Say why a network's gains do not fit a noise and a rule; None if they do, or if it is not calibrated.

    Args:
        model: Network, calibrated or not.
        noise_variance: A number or one per channel; None if it is not known beforehand.
        rule: Variance rule.
    """
    fitted, fitted_rule = gain_noise(model), gain_rule(model)
    if fitted is None:
        return None
    if fitted_rule not in (None, rule):
        return f'calibrated with the rule {fitted_rule!r}, but the rule is {rule!r}: calibrate with this rule'
    if noise_variance is None:
        return None
    here = torch.tensor(noise_variance, dtype=torch.float64)
    ratio = (here / fitted.double().cpu()).clamp_min(1e-12)
    if bool(((ratio > FAR_OFF) | (ratio < 1 / FAR_OFF)).any()):
        return (
            f'calibrated at a noise variance of {_numbers(fitted)}, but the noise is {_numbers(here)} (squared units '
            'of the normalised image): calibrate at this level'
        )
    return None


def _numbers(values: Tensor) -> str:
    return ', '.join(f'{value:.3g}' for value in values.flatten().tolist())


def _apply_gain(module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:  # noqa: ARG001  signature of a hook
    gain = module._buffers.get(GAIN)
    if gain is None:
        return out
    if isinstance(out, Gaussian):
        var = out.v * gain.to(out.dtype)
        return out.replace(out.mu, var.clamp_min(out.min_variance) if out.min_variance else var)
    if isinstance(out, tuple) and len(out) == 2:  # the ADF paper's modules, called with mean and variance
        mean, var = out
        return mean, var * gain.to(var.dtype)
    return out


def _expect_gains(module: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Make buffers for the gains in a state dict, which loading then fills."""
    remove_gains(module)
    some = next(module.parameters(), torch.empty(0))
    for name, part in module.named_modules(prefix=prefix.rstrip('.')):
        key = f'{name}.{GAIN}' if name else GAIN
        if key in state:
            set_gain(part, torch.ones_like(state[key], device=some.device))
    for name in (NOISE, RULE):
        if prefix + name in state:
            module.register_buffer(name, torch.zeros_like(state[prefix + name], device=some.device))
