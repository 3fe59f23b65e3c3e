"""Apply `filter_cfg` to the data sets of this package."""

from collections.abc import Mapping

from mmengine.dataset import BaseDataset


def filter_empty(dataset: BaseDataset, *, others: tuple[str, ...] = ()) -> list[dict]:
    """Return the data list of a dataset, without the images that its `filter_cfg` excludes from training.

    ``filter_empty_gt=True`` excludes images that have no objects, or only ignored ones; ``min_size=N`` excludes images
    with a side of fewer than N pixels. Test mode keeps everything.

    Args:
        dataset: Dataset with a `data_list`.
        others: Further options, which the dataset handles itself.

    Raises:
        ValueError: If `filter_cfg` holds anything else, or if nothing is left.
    """
    if not isinstance(dataset.filter_cfg or {}, Mapping):
        raise ValueError(f'filter_cfg={dataset.filter_cfg!r} must be a dict: filter_cfg=dict(filter_empty_gt=True)')
    options = dict(dataset.filter_cfg or {})
    wanted, smallest = options.pop('filter_empty_gt', False), options.pop('min_size', 0)
    unknown = sorted(set(options) - set(others))
    if unknown:
        known = ', '.join(('filter_empty_gt', 'min_size', *others))
        raise ValueError(f'filter_cfg has {unknown}; {type(dataset).__name__} knows {known} only')
    if isinstance(smallest, bool) or not isinstance(smallest, (int, float)):
        raise ValueError(f'filter_cfg: min_size={smallest!r} must be a number of pixels')
    if dataset.test_mode or not (wanted or smallest):
        return dataset.data_list
    large = [info for info in dataset.data_list if min(info['width'], info['height']) >= smallest]
    if not large:
        raise ValueError(f'filter_cfg: min_size={smallest} leaves none of {len(dataset.data_list)} images')
    kept = [info for info in large if any(not one['ignore_flag'] for one in info['instances']) or not wanted]
    if not kept:
        raise ValueError(
            f'filter_empty_gt=True leaves none of {len(large)} images: none has an object of the classes '
            f'{", ".join(dataset.metainfo["classes"])}'
        )
    return kept
