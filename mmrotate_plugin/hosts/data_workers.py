"""Let processes that are started anew for the data know this package.

A data worker that is spawned, not forked, unpickles the data set and imports no more than its classes need. Where these
are mmdet's and mmrotate's alone, the mends of `host_mends` would be missing there. So every pipeline that is pickled
names this module, and whoever unpickles it imports the package.
"""

import copyreg
from typing import Any

from mmengine.dataset import Compose


def _compose(state: dict[str, Any]) -> Compose:
    pipeline = Compose.__new__(Compose)
    pipeline.__dict__.update(state)
    return pipeline


copyreg.pickle(Compose, lambda pipeline: (_compose, (pipeline.__dict__,)))
