"""What `filter_cfg` means to the data sets of this package."""

from mmengine.dataset import BaseDataset


def filter_empty(dataset: BaseDataset) -> list[dict]:
    """The data list of a dataset, without images that have no objects if its `filter_cfg` says so.

    Raises:
        ValueError: If `filter_cfg` holds anything else, or if nothing is left.
    """
    options = dict(dataset.filter_cfg or {})
    wanted = options.pop('filter_empty_gt', False)
    if options:
        raise ValueError(f'filter_cfg has {sorted(options)}; {type(dataset).__name__} knows filter_empty_gt only')
    if dataset.test_mode or not wanted:
        return dataset.data_list
    kept = [info for info in dataset.data_list if info['instances']]
    if not kept:
        raise ValueError(
            f'filter_empty_gt=True leaves none of {len(dataset.data_list)} images: none has an object of the classes '
            f'{", ".join(dataset.metainfo["classes"])}'
        )
    return kept
