"""Where the configs of this package are, for the hosts' own tools."""

import difflib
from pathlib import Path

FOLDER = Path(__file__).parents[1] / '.mim' / 'configs'


def config_file(name: str) -> str:
    """Path of a config of this package, for `_base_` in a config that any tool can read.

    mmengine evaluates the expression behind `_base_` before it imports anything, and knows ``mmrotate_plugin::...``
    only once this package is imported. So this works in mmdet's and mmrotate's own tools too::

        _base_ = __import__('mmrotate_plugin').config_file('synthetic/rotated-fcos_re18_fpn_synthetic.py')

    Args:
        name: Below configs/, such as ``'s2anet/s2anet-le135_re50_fpn_1x_dota.py'``.

    Raises:
        FileNotFoundError: If there is no such config; the message has the closest name.
    """
    path = FOLDER / name
    if path.is_file():
        return str(path)
    names = [file.relative_to(FOLDER).as_posix() for file in sorted(FOLDER.rglob('*.py'))]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f'; did you mean {close[0]}?' if close else ''
    raise FileNotFoundError(f"mmrotate_plugin has no config '{name}'{hint}")
