"""Parts that mmdet and mmrotate have nothing equal to, as a file of their own beside an exported config."""

import inspect
import re
from types import ModuleType

from ..datasets import transforms
from .pipelines import RESIZE
from .plain import ROI_ALIGN

MODULE = 'exported_parts'
HEAD = '''"""Parts of an exported detector. They need torch, numpy, mmcv and mmengine."""

from mmengine.registry import MODELS, TRANSFORMS
'''
# mmengine puts the config's folder there when it reads the config; a config with an import statement it would read anew
FIND = f"__import__('sys').path.insert(0, '{{{{ fileDirname }}}}')  # where {MODULE}.py is\n"
OWN_IMPORT = re.compile(r'^from \.+[\w.]* import .*\n', re.MULTILINE)
REGISTER = re.compile(r'^@register\(\w+\)\n|^@\w+\.register_module\(\)\n', re.MULTILINE)


def parts_file(*, resize: bool, roi_align: bool) -> str:
    """The text of the file, with the parts that are asked for."""
    text = HEAD
    if resize:
        text += _standalone(transforms, f"@TRANSFORMS.register_module(name='{RESIZE}', force=True)\n")
    if roi_align:
        from mmcv import ops  # noqa: F401  else there is nothing to export

        from ..models.roi_heads import ri_roi_align

        text += _standalone(ri_roi_align, f"@MODELS.register_module(name='{ROI_ALIGN}', force=True)\n")
        text += '\n\nimport mmcv.ops  # where RoI extractors look their layers up\n\n'
        text += f'mmcv.ops.{ROI_ALIGN} = RiRoIAlignRotated\n'
    return text


def _standalone(module: ModuleType, decorator: str) -> str:
    """The source of a module that imports nothing of this package but its registry."""
    source = inspect.getsource(module)
    source, imports = OWN_IMPORT.subn('', source)
    source, registered = REGISTER.subn(decorator, source)
    if imports != 1 or registered != 1 or re.search(r'^\s*from \.', source, re.MULTILINE):
        raise RuntimeError(f'{module.__name__} must import the registry alone of this package, and register one class')
    return '\n\n# ' + '-' * 100 + '\n' + source
