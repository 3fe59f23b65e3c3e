"""Parts that mmdet and mmrotate have nothing equal to, as files of their own beside an exported config."""

import inspect
import re
from importlib import import_module

# their names in the exported config; the mends have none, importing them is enough
RESIZE, ROI_ALIGN, MENDS = 'ExportedSymmetricResize', 'ExportedRiRoIAlignRotated', 'ExportedHostMends'
LOADER, PREPROCESSOR = 'ExportedLoadImageFromFile', 'ExportedDetDataPreprocessor'
_WAY_BACK = ('structures.stretch', 'structures.centred_scale', 'hosts.mends')
# name: its file without .py, the modules that it is made of, the registry of the class in the last of them
PARTS = {
    RESIZE: ('exported_symmetric_resize', (*_WAY_BACK, 'datasets.transforms.symmetric_resize'), 'TRANSFORMS'),
    MENDS: ('exported_host_mends', _WAY_BACK, None),
    ROI_ALIGN: ('exported_ri_roi_align', ('models.roi_heads.ri_roi_align',), 'MODELS'),
    LOADER: ('exported_load_image', ('datasets.utils.image_headers', 'datasets.transforms.loading'), 'TRANSFORMS'),
    PREPROCESSOR: ('exported_data_preprocessor', ('models.data_preprocessors.det_data_preprocessor',), 'MODELS'),
}
# a line of the config; mmengine puts the config's folder there when it reads it. It reads a config with an import
# statement in another way
FIND = "__import__('sys').path.append('{{ fileDirname }}')  # for the files beside this one\n"
LOOKED_UP = """

from mmcv import ops  # noqa: E402  where RoI extractors look their layers up

ops.ExportedRiRoIAlignRotated = RiRoIAlignRotated
"""
OWN_IMPORT = re.compile(r'^from (\.[\w.]*) import .*\n', re.MULTILINE)
REGISTER = re.compile(r'^@register\(\w+\)\n|^@\w+\.register_module\(\)\n', re.MULTILINE)


def part_files(names: set[str]) -> dict[str, str]:
    """Names of modules, and the texts of their files; each needs mmcv, mmengine, torch and numpy alone.

    Args:
        names: Of `PARTS`.
    """
    return {PARTS[name][0]: _text(name) for name in sorted(names)}


def _text(name: str) -> str:
    """The sources of modules that import nothing of this package but its registry and each other, in one file."""
    _, modules, registry = PARTS[name]
    known = {'registry', *(part for module in modules for part in module.split('.'))}
    texts, registered = [], 0
    for module in modules:
        source = inspect.getsource(import_module(f'..{module}', __package__))
        own = {found.lstrip('.').partition('.')[0] for found in OWN_IMPORT.findall(source)}
        source, count = REGISTER.subn(f"@{registry}.register_module(name='{name}', force=True)\n", source)
        line = f'from mmengine.registry import {registry}\n' if count else ''
        source = OWN_IMPORT.sub(lambda found, line=line: line if 'registry' in found[1] else '', source)
        if own - known or re.search(r'^\s+from \.', source, re.MULTILINE):
            raise RuntimeError(f'{module} imports {own - known} of this package, which is not in the file of {name}')
        texts.append(source)
        registered += count
    if registered != (registry is not None):
        raise RuntimeError(
            f'{modules} register {registered} classes, where {name} needs one with a registry, else none'
        )
    return '\n\n'.join(texts) + (LOOKED_UP if name == ROI_ALIGN else '')
