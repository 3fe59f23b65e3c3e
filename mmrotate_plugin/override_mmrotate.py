"""Makes the bare names ``ReResNet`` and ``ReFPN`` mean this package's classes in mmrotate's scope too.

One line in an mmrotate config does it::

    custom_imports = dict(imports=['mmrotate_plugin.override_mmrotate'], allow_failed_imports=False)

so that mmrotate's own ``redet`` configs build equivariant networks on plain tensors. Without it the bare names find
mmrotate's classes, and ``type='mmrotate_plugin.ReResNet'`` finds ours.
"""

from mmrotate import models  # noqa: F401  registers mmrotate's own classes first, so that they cannot replace ours
from mmrotate.registry import MODELS

from .models import ReFPN, ReResNet

for module in (ReResNet, ReFPN):
    MODELS.register_module(module=module, force=True)
