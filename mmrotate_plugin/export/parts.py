"""Parts that mmdet and mmrotate have nothing equal to, as files of their own beside an exported config."""

import inspect
import re
from importlib import import_module

# their names in the exported config
RESIZE, ROI_ALIGN = 'ExportedSymmetricResize', 'ExportedRiRoIAlignRotated'
LOADER, PREPROCESSOR = 'ExportedLoadImageFromFile', 'ExportedDetDataPreprocessor'
# name: its file without .py, the module that it is made of, the registry
PARTS = {
    RESIZE: ('exported_symmetric_resize', 'datasets.transforms', 'TRANSFORMS'),
    ROI_ALIGN: ('exported_ri_roi_align', 'models.roi_heads.ri_roi_align', 'MODELS'),
    LOADER: ('exported_load_image', 'datasets.loading', 'TRANSFORMS'),
    PREPROCESSOR: ('exported_data_preprocessor', 'models.data_preprocessors.det', 'MODELS'),
}
BESIDE = {LOADER: ('exported_image_files', 'datasets.image_files')}  # what a part imports, as a file of its own
# a line of the config; mmengine puts the config's folder there when it reads it. It reads a config with an import
# statement in another way
FIND = "__import__('sys').path.append('{{ fileDirname }}')  # for the files beside this one\n"
LOOKED_UP = """

from mmcv import ops  # noqa: E402  where RoI extractors look their layers up

ops.ExportedRiRoIAlignRotated = RiRoIAlignRotated
"""
OWN_IMPORT = re.compile(r'^from \.[\w.]* import .*\n', re.MULTILINE)
REGISTER = re.compile(r'^@register\(\w+\)\n|^@\w+\.register_module\(\)\n', re.MULTILINE)


def part_files(names: set[str]) -> dict[str, str]:
    """Names of modules, and the texts of their files; each needs mmcv, mmengine, torch and numpy alone.

    Args:
        names: Of `PARTS`.
    """
    files = {PARTS[name][0]: _text(name) for name in sorted(names)}
    for module, source in (BESIDE[name] for name in sorted(names) if name in BESIDE):
        files[module] = inspect.getsource(import_module(f'..{source}', __package__))
    return files


def _text(name: str) -> str:
    """The source of a module that imports nothing of this package but its registry."""
    _, module, registry = PARTS[name]
    source = inspect.getsource(import_module(f'..{module}', __package__))
    if name in BESIDE:
        beside, own = BESIDE[name]
        source = source.replace(f'from .{own.rpartition(".")[2]} import', f'from {beside} import')
    source, imports = OWN_IMPORT.subn(f'from mmengine.registry import {registry}\n', source)
    source, registered = REGISTER.subn(f"@{registry}.register_module(name='{name}', force=True)\n", source)
    if (imports, registered) != (1, 1) or re.search(r'^\s+from \.', source, re.MULTILINE):
        raise RuntimeError(f'{module} must import the registry alone of this package, and register one class')
    return source + (LOOKED_UP if name == ROI_ALIGN else '')
