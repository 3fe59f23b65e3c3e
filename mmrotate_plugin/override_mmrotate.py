"""Make the bare names ``ReResNet``, ``ReFPN`` and ``RiRoIAlignRotated`` mean this package's classes in mmrotate too.

One line in an mmrotate config does it::

    custom_imports = dict(imports=['mmrotate_plugin.override_mmrotate'], allow_failed_imports=False)

Then mmrotate's own ``redet`` configs build equivariant networks on plain tensors, and run on a CPU. Without it, the
bare names find the classes of mmrotate and mmcv, and ``type='mmrotate_plugin.ReResNet'`` finds ours.
"""

from mmcv import ops
from mmrotate import models  # noqa: F401  registers mmrotate's own classes first, so that they cannot replace ours
from mmrotate.registry import MODELS

from .models import ReFPN, ReResNet
from .models.roi_heads.ri_roi_align import RiRoIAlignRotated

for module in (ReResNet, ReFPN):
    MODELS.register_module(module=module, force=True)
ops.RiRoIAlignRotated = RiRoIAlignRotated  # where RoI extractors look up their layers
