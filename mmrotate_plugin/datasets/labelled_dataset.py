"""Share what data sets of images and label files need: checks of classes and boxes, counts, difficulty."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..utils.messages import some, warn
from .dota_format import Annotation, BadAnnotation, check_polygon
from .utils.broken_files import SkipsBrokenFiles
from .utils.class_names import classes_fault, complete_metainfo
from .utils.filter_cfg import filter_empty
from .utils.foreign_formats import WANTED
from .utils.object_census import Census


class LabelledDataset(SkipsBrokenFiles):
    """Base of the data sets that read label files.

    A subclass calls `_begin`, then `_instances` for each label file, then `_end`.

    Args:
        diff_thr: Ignore objects with a higher difficulty. None: ignore all difficult ones in test mode, none in
            training.
        strict: Raise at the first object, image or label file that cannot be used.
        check_pixels: Decode every image at the start.
        kwargs: Arguments of mmengine's BaseDataset.

    Raises:
        ValueError: If `metainfo` has impossible classes, or `data_prefix` or `ann_file` is of a wrong type.
    """

    METAINFO: dict[str, Any] = {'classes': (), 'palette': []}
    UNIT = 'object'  # name of an entry of a label file, for messages
    WANTED = WANTED  # what an object of a label file looks like, for messages
    FILTERS: tuple[str, ...] = ()  # keys of filter_cfg that the class handles itself

    def __init__(
        self, diff_thr: int | None = None, *, strict: bool = False, check_pixels: bool = False, **kwargs: Any
    ) -> None:
        self.diff_thr = diff_thr
        prefix, labels = kwargs.get('data_prefix'), kwargs.get('ann_file')
        if prefix is not None and not isinstance(prefix, Mapping):
            raise ValueError(f"data_prefix={prefix!r} must be a dict, such as data_prefix=dict(img_path='images/')")
        if labels is not None and not isinstance(labels, str):
            raise ValueError(f'ann_file={labels!r} must be one path; ConcatDataset joins several data sets')
        kwargs['metainfo'] = complete_metainfo(kwargs.get('metainfo'), self.METAINFO)
        super().__init__(strict=strict, check_pixels=check_pixels, **kwargs)

    @property
    def census(self) -> Census | None:
        """What was counted while the label files were read; None before that."""
        return getattr(self, '_census', None)

    def filter_data(self) -> list[dict]:
        """Apply `filter_cfg`; in test mode keep everything."""
        return filter_empty(self, others=self.FILTERS)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the labels of the objects in one image."""
        return [instance['bbox_label'] for instance in self.get_data_info(idx)['instances']]

    def _begin(self) -> None:
        """Start counting objects."""
        fault = classes_fault(self.metainfo['classes'])  # again, as they may come from a file
        if fault is not None:
            raise ValueError(f'metainfo: {fault}')
        self._census = Census(
            self.metainfo['classes'], self.METAINFO['classes'], unit=self.UNIT, strict=self.strict, wanted=self.WANTED
        )
        self._resized: list[str] = []

    def _compare_size(self, name: str, said: tuple[int, int] | None, size: tuple[int, int]) -> None:
        """Note an image whose label file says another width and height than the image has."""
        if said is not None and said != size:
            self._resized.append(f'{name}: {size[0]} x {size[1]}, not {said[0]} x {said[1]}')

    def _instances(
        self, path: Path | str, found: Iterable[tuple[int, Annotation | BadAnnotation]], width: int, height: int
    ) -> list[dict]:
        """Return the usable objects of one label file; name and count the others."""
        threshold = self.diff_thr if self.diff_thr is not None else 0 if self.test_mode else math.inf
        instances, refused, total = [], [], 0
        for number, item in found:
            total += 1
            try:
                if isinstance(item, BadAnnotation):
                    raise item
                check_polygon(item.polygon, width, height)
                label = self._census.label(item.name)
            except BadAnnotation as error:
                refused.append((number, error))
                if self.strict:
                    break
                continue
            if label is not None:
                flag = int(item.difficulty > threshold)
                instances.append(dict(bbox=item.polygon, bbox_label=label, ignore_flag=flag) | item.extra)
        self._census.refuse(path, refused, total)
        return instances

    def _end(self, where: str) -> None:
        """Report what was left out.

        Raises:
            ValueError: If nothing can be used.
        """
        self._census.report(where, training=not self.test_mode)
        if self._resized:
            warn(
                f'{where}: {len(self._resized)} images have another size than their label files say '
                f'({some(self._resized, 3)}); boxes are taken as pixels of the images'
            )
