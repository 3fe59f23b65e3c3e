"""Rotation-equivariant backbones and uncertainty for OpenMMLab detectors.

Importing the package registers everything in it (in a config: ``custom_imports = dict(imports=['mmrotate_plugin'])``),
and makes its configs known as ``mmrotate_plugin::...``; `config_file` finds them in any tool. It needs torch, mmengine,
mmcv (no compiled operator of it) and e2cnn; mmdet and mmrotate are imported only by what plugs into their detectors.

Raises:
    ImportError: If one of the four is missing; the message says how to install it.
"""

from ._dependencies import check_dependencies
from .version import __version__

check_dependencies()

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

from . import datasets, engine, evaluation, models  # noqa: E402
from .hosts import data_workers, mends  # noqa: E402, F401
from .utils.config_files import config_file  # noqa: E402

# mmengine resolves `_base_ = 'mmrotate_plugin::...'` for the packages of this table only. A module's name, not that of
# the distribution: for `pip install -e` the original mmengine would look for configs beside the metadata
MODULE2PACKAGE.setdefault('mmrotate_plugin', 'mmrotate_plugin.version')

__all__ = ['__version__', 'config_file', 'datasets', 'engine', 'evaluation', 'models']
