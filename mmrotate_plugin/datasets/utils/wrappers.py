"""Look into the wrappers that mmengine and mmdet put around data sets."""

from collections.abc import Iterator, Sequence
from typing import Any


def leaves(dataset: Any) -> Iterator[Any]:
    """Yield the data sets inside `RepeatDataset`, `ConcatDataset`, `ClassBalancedDataset`, `MultiImageMixDataset`, ...

    Args:
        dataset: A data set that was built, or wrappers around one or several, nested to any depth.
    """
    if isinstance(several := getattr(dataset, 'datasets', None), Sequence):
        for part in several:
            yield from leaves(part)
    elif (inner := getattr(dataset, 'dataset', None)) is not None:
        yield from leaves(inner)
    else:
        yield dataset
