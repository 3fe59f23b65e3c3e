"""Make spawned data workers import this package.

A data worker that is spawned rather than forked unpickles the data set and imports only what its classes need. If these
all belong to mmdet and mmrotate, the mends of `mends` would be missing. So every pickled pipeline names this module,
and unpickling it imports the package.
"""

import copyreg
from typing import Any

from mmengine.dataset import Compose


def _compose(state: dict[str, Any]) -> Compose:
    pipeline = Compose.__new__(Compose)
    pipeline.__dict__.update(state)
    return pipeline


copyreg.pickle(Compose, lambda pipeline: (_compose, (pipeline.__dict__,)))
