import pytest

from mmrotate_plugin.kernels import use_compiled_loops


@pytest.fixture(autouse=True)
def compiled_loops():
    """Switch the compiled loops on, and back to what was before."""
    before = use_compiled_loops(True)
    yield
    use_compiled_loops(before)
