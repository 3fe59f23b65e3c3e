"""What e2cnn's last release needs, and that each mend of it is still needed."""

import ast
import warnings
from importlib import metadata
from pathlib import Path

import e2cnn
import numpy as np
import pytest
from e2cnn import gspaces
from e2cnn.kernels import KernelBasis

from mmrotate_plugin._dependencies import check_dependencies
from mmrotate_plugin.equivariant._e2cnn import e2cnn_on_numpy_2
from mmrotate_plugin.equivariant.basis import steerable_basis

PACKAGE = Path(__file__).parents[2] / 'mmrotate_plugin'
E2CNN = Path(e2cnn.__file__).parent


def imports_e2cnn(file: Path) -> bool:
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        if any(name.split('.')[0] == 'e2cnn' for name in names):
            return True
    return False


def test_one_module_imports_e2cnn():
    assert [f.name for f in PACKAGE.rglob('*.py') if imports_e2cnn(f)] == ['_e2cnn.py']


def test_the_mends_are_for_this_release():
    said = 'e2cnn has a new release: see whether what equivariant/_e2cnn.py mends is still broken'
    assert metadata.version('e2cnn') == '0.2.3', said


def kernels_of_d4() -> KernelBasis:
    gspace = gspaces.FlipRot2dOnR2(4)
    regular = gspace.regular_repr
    return gspace.build_kernel_basis(regular, regular, sigma=[0.005, 0.4], rings=[0.0, 1.0], maximum_frequency=3)


def sample_d4() -> np.ndarray:
    return kernels_of_d4().sample(np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]))


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < '2.0.0', reason='numpy 1 copies where it has to')
def test_the_mend_of_numpy_2_is_needed():
    with pytest.raises(ValueError, match='Unable to avoid copy'):
        sample_d4()  # if this raises no more, e2cnn_on_numpy_2 can go


@pytest.mark.skipif(hasattr(np.ndarray, 'tostring'), reason='numpy before 2.3 has ndarray.tostring')
def test_the_mend_of_the_hash_is_needed():
    source = (E2CNN / 'kernels/irreps_basis.py').read_text(encoding='utf-8')
    assert '.tostring()' in source  # if not, _hash_of_a_kernel can go
    assert hash(kernels_of_d4()) == hash(kernels_of_d4())


def test_with_the_mend_it_samples_and_numpy_is_given_back():
    with e2cnn_on_numpy_2():
        samples = sample_d4()
    assert samples.shape[:2] == (8, 8) and samples.shape[-1] == 3 and np.isfinite(samples).all()
    assert e2cnn.kernels.utils.np is np


@pytest.mark.parametrize('group', ['C2', 'C3', 'C8', 'D2', 'D3', 'D8'])
def test_bases_are_built_without_a_warning_of_what_will_end(group):
    build = steerable_basis.__wrapped__  # not the one that is kept already
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        bases = [build(group, size, trivial_input=trivial) for size in (1, 3, 5) for trivial in (False, True)]
    assert all(len(basis) for basis in bases)


def test_warnings_on_the_source_of_others_are_left_out(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'has_an_escape.py').write_text("text = '\\{'\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        check_dependencies({'has_an_escape': ('x', 'x')})
    assert [str(c.message) for c in caught if issubclass(c.category, SyntaxWarning)] == []


def test_e2cnn_still_has_what_is_warned_of():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        for file in E2CNN.rglob('*.py'):
            compile(file.read_text(encoding='utf-8'), str(file), 'exec')
    assert any('invalid escape sequence' in str(c.message) for c in caught)  # if not, no need to leave warnings out
