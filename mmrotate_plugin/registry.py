"""Register the package's classes, and say where their names are found.

A name registered here lives in two places:

- this package's own registries, scope ``mmrotate_plugin``: ``type='mmrotate_plugin.ReResNet'`` finds it from every
  OpenMMLab scope (mmengine imports ``mmrotate_plugin.registry`` by the scope's name if it is not imported yet);
- mmengine's root registries, where every scope's lookup ends: the bare ``type='ReResNet'`` works from mmdet,
  mmpretrain, mmsegmentation, and from mmcv's ``build_conv_layer`` and similar builders.

Classes that need a host (`HOSTED`) are found by their scoped name only, and imported on demand.

A host that registers the same bare name in its own scope (mmrotate: ``ReResNet``, ``ReFPN``) comes first there.
``mmrotate_plugin.override_mmrotate`` changes that, explicitly.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODEL_WRAPPERS as ROOT_MODEL_WRAPPERS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPERS as ROOT_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import Registry

SCOPE = 'mmrotate_plugin'

# names whose modules import mmdet or mmrotate, which takes seconds: imported when a config asks for one
HOSTED = {
    'DetDataPreprocessor': 'mmrotate_plugin.models.data_preprocessors.det_data_preprocessor',
    'ReFCOSHead': 'mmrotate_plugin.models.dense_heads.re_fcos_head',
    'ReDet': 'mmrotate_plugin.models.detectors.redet',
    'RotatedTTAModel': 'mmrotate_plugin.models.test_time_augs.rotated_tta',
    'UncertainDetector': 'mmrotate_plugin.models.detectors.uncertain_detector',
}


class HostedRegistry(Registry):
    """A registry that imports modules on demand, by the names of their classes."""

    def __init__(self, *args: Any, hosted: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.hosted = hosted

    def get(self, key: str) -> type | None:
        scope, name = self.split_scope_key(key)
        if name in self.hosted and scope in (None, SCOPE):
            import_module(self.hosted[name])
        return super().get(key)


MODELS = HostedRegistry('model', parent=ROOT_MODELS, scope=SCOPE, locations=['mmrotate_plugin.models'], hosted=HOSTED)
DATASETS = Registry('dataset', parent=ROOT_DATASETS, scope=SCOPE, locations=['mmrotate_plugin.datasets'])
TRANSFORMS = Registry('transform', parent=ROOT_TRANSFORMS, scope=SCOPE, locations=['mmrotate_plugin.datasets'])
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope=SCOPE, locations=['mmrotate_plugin.engine'])
OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=ROOT_OPTIM_WRAPPERS, scope=SCOPE, locations=['mmrotate_plugin.engine']
)
METRICS = Registry('metric', parent=ROOT_METRICS, scope=SCOPE, locations=['mmrotate_plugin.evaluation'])
MODEL_WRAPPERS = Registry(
    'model_wrapper', parent=ROOT_MODEL_WRAPPERS, scope=SCOPE, locations=['mmrotate_plugin.models.utils.cpu_distributed']
)

T = TypeVar('T')


def register(registry: Registry) -> Callable[[T], T]:
    """Register a class under its own name in `registry` and in the root above it.

    Use ``@registry.register_module()`` alone for a class that other scopes must not find by its bare name, because a
    host has a class of that name.
    """
    root = registry.parent
    if root is None:
        raise ValueError(f"registry '{registry.name}' of scope '{registry.scope}' has no root above it")

    def decorator(module: T) -> T:
        registry.register_module(module=module)
        root.register_module(module=module)
        return module

    return decorator
