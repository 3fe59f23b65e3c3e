"""The only place that imports e2cnn, and what its last release needs on newer Pythons and numpy.

e2cnn 0.2.3 is no longer maintained. Its bases of C_N and D_N were built on Python 3.11 to 3.13 with numpy 1.26 to 2.4
and scipy 1.15 to 1.17. What stands in the way there:

- numpy 2 refuses ``np.array(x, copy=False)`` where a copy is needed: see `e2cnn_on_numpy_2`.
- numpy 2.3 dropped ``ndarray.tostring``: see `_hash_of_a_kernel`.
- Its source has escapes such as ``'\\{'``, which Python from 3.12 on warns of when it compiles them. That happens once,
  in `mmrotate_plugin._dependencies`, which imports e2cnn first and leaves such warnings out.
- ``np.float``, gone since numpy 1.24, is in its representations of O(2) alone, which nothing here uses.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import e2cnn.kernels.utils
import numpy as np
from e2cnn.group import Representation
from e2cnn.gspaces import FlipRot2dOnR2, GeneralOnR2, Rot2dOnR2
from e2cnn.kernels import EmptyBasisException, irreps_basis
from e2cnn.nn import FieldType, GeometricTensor

__all__ = [
    'E2CNN_LOCK',
    'EmptyBasisException',
    'FieldType',
    'FlipRot2dOnR2',
    'GeneralOnR2',
    'GeometricTensor',
    'Representation',
    'Rot2dOnR2',
    'e2cnn_on_numpy_2',
]

# e2cnn fills its tables of groups and representations as they are asked for, which two threads must not do at once
E2CNN_LOCK = threading.RLock()


@contextmanager
def e2cnn_on_numpy_2() -> Iterator[None]:
    """Let e2cnn 0.2.3 sample the kernels of D_N under numpy 2.

    Its ``e2cnn.kernels.utils`` writes ``np.array(x, copy=False)`` for "copy only if needed", which numpy 2 spells
    ``np.asarray(x)`` and refuses for a plain number.
    """
    utils = e2cnn.kernels.utils
    names = {name: getattr(np, name) for name in ('ndarray', 'empty', 'cos', 'sin')}
    utils.np = SimpleNamespace(**names, array=lambda x, copy=True: np.array(x) if copy else np.asarray(x))
    try:
        yield
    finally:
        utils.np = np


def _hash_of_a_kernel(kernel: irreps_basis.IrrepBasis) -> int:
    """What e2cnn means by its own, which calls ``ndarray.tostring``."""
    return hash((kernel.in_irrep, kernel.out_irrep, kernel.mu.tobytes(), kernel.gamma))


# e2cnn's own convolutions of D_N ask for the hash as long as they live, so this mend stays on. Our bases need none.
if not hasattr(np.ndarray, 'tostring'):
    for _kernel in (irreps_basis.R2FlipsSolution, irreps_basis.R2FlipsDiscreteRotationsSolution):
        _kernel.__hash__ = _hash_of_a_kernel
