"""Files that need nothing of this package, and refusals of sources that cannot become one."""

import ast
import sys
import types

import pytest

from mmrotate_plugin.export.standalone_modules import PARTS, part_files


def with_source(monkeypatch, tmp_path, source):
    """A part made of a module with this source, and of one that defines `CentredScale`."""
    module = types.ModuleType('mmrotate_plugin.made_up')
    module.__file__ = str(tmp_path / 'made_up.py')
    (tmp_path / 'made_up.py').write_text(source)
    monkeypatch.setitem(sys.modules, 'mmrotate_plugin.made_up', module)
    monkeypatch.setitem(PARTS, 'Made', ('made', ('structures.centred_scale', 'made_up'), 'TRANSFORMS'))
    return lambda: part_files({'Made'})['made']


@pytest.mark.parametrize('name', PARTS)
def test_files_import_nothing_of_this_package_and_register_their_class(name):
    (text,) = part_files({name}).values()
    tree = ast.parse(text)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not any(node.level or 'mmrotate_plugin' in (node.module or '') for node in imports)
    registered = text.count(f"register_module(name='{name}', force=True)\nclass ")
    assert registered == (PARTS[name][2] is not None)


def test_decorators_and_imports_of_any_form_are_replaced(monkeypatch, tmp_path):
    text = with_source(monkeypatch, tmp_path, (
        'from .registry import (\n    TRANSFORMS,\n    register,\n)\n'
        'from .structures import (\n    CentredScale,\n    content_slices,\n)\n'
        '@register(TRANSFORMS)\nclass Made(CentredScale):\n    """from .here import nothing"""\n'
    ))()  # fmt: skip
    space: dict = {}
    exec(compile(text, 'made.py', 'exec'), space)
    from mmengine.registry import TRANSFORMS

    assert TRANSFORMS.module_dict.pop('Made') is space['Made']
    assert space['Made'].__doc__ == 'from .here import nothing'


@pytest.mark.parametrize(('source', 'message'), [
    ('from .structures import stretch_rotated\n', "imports {'stretch_rotated'} of this package, which its standalone"),
    ('from .structures import CentredScale as Scale\n', 'CentredScale as Scale'),
    ('def f():\n    from .structures import CentredScale\n', 'which its standalone file lacks'),
    ('ROTATED = 6\n', "defines {'ROTATED'} a second time in the file of Made"),
    ('class Made:\n    pass\n', 'register 0 classes, where Made needs one'),
], ids=['missing', 'alias', 'nested', 'twice', 'unregistered'])  # fmt: skip
def test_sources_that_cannot_stand_alone_are_refused(monkeypatch, tmp_path, source, message):
    with pytest.raises(RuntimeError, match=message.replace('(', r'\(')):
        with_source(monkeypatch, tmp_path, source)()
