"""Change any detector's config so that its detections have standard deviations."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

WRAPPER = 'UncertainDetector'


def is_uncertain(model: Mapping[str, Any]) -> bool:
    """Return whether a model's config is that of an `UncertainDetector`."""
    return _name(model) == WRAPPER


def add_uncertainty(
    cfg: Config,
    *,
    noise_std: float | str | None = None,
    method: str | None = None,
    score_map: bool | None = None,
) -> None:
    """Wrap the model of a config in an `UncertainDetector`, or change the one that it is already.

    Args:
        cfg: The config, changed in place.
        noise_std: Grey levels, or 'estimate'. None keeps the noise that the config sets, for an `UncertainDetector` or
            an `ADFResNet`; if it sets none, 'estimate'.
        method: 'propagated', 'jacobian' or 'monte_carlo'; None keeps that of the config, else 'propagated'.
        score_map: Whether to ask for maps of the scores' deviations, which 'propagated' alone has; None asks for them
            where there are some.
    """
    model = cfg.model
    wrapped = is_uncertain(model)
    new = {**model} if wrapped else {'type': f'mmrotate_plugin.{WRAPPER}', 'detector': model}
    new['enabled'] = True
    if method is not None:
        new['method'] = method
    if noise_std is not None:
        new.pop('noise_variance', None)
        new['noise_std'] = noise_std
    elif new.get('noise_std') is None and new.get('noise_variance') is None and not _knows_noise(new['detector']):
        new['noise_std'] = 'estimate'
    propagated = new.get('method', 'propagated') == 'propagated'
    new['score_map'] = propagated if score_map is None else score_map
    cfg.model = new


def inner_model(cfg: Config) -> Any:
    """Return the config of the detector itself, inside an `UncertainDetector` or not."""
    return cfg.model.detector if is_uncertain(cfg.model) else cfg.model


def _knows_noise(detector: Mapping[str, Any]) -> bool:
    return _name(detector.get('backbone') or {}) == 'ADFResNet'


def _name(part: Mapping[str, Any]) -> str:
    kind = part.get('type', '')
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]
