"""Read data sets of a folder of images and a folder of label files, paired by name."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..utils.messages import some, warn
from ..utils.typecheck import typed
from .dota_format import Annotation, BadAnnotation
from .labelled_dataset import LabelledDataset
from .utils.broken_files import BrokenFileError
from .utils.folder_files import IMAGES, Folder, list_folder, suffixes_of

Found = Iterable[tuple[int, Annotation | BadAnnotation]]
Pair = tuple[str, Path, Path | None]

SUFFIXES = ('bmp', 'jpeg', 'jpg', 'png', 'tif', 'tiff')  # of images, without more information
_NO_LABELS = ('classes', 'labels', 'license', 'readme')  # text files that tools put next to label files


class FolderDataset(LabelledDataset):
    """Base of `DOTADataset` and of the data sets of `formats` that have a label file for each image.

    Args:
        diff_thr, strict, check_pixels: See `LabelledDataset`.
        img_suffix: Suffix of the images, or several; capitals do not matter.
        kwargs: Of `LabelledDataset`.
    """

    LABELS: tuple[str, ...] = ('.txt',)  # suffixes of label files
    NEED_ALL = True  # whether every image must have a label file; if not, those without are left out

    @typed
    def __init__(
        self,
        diff_thr: int | None = None,
        img_suffix: str | Sequence[str] = SUFFIXES,
        *,
        strict: bool = False,
        check_pixels: bool = False,
        **kwargs: Any,
    ) -> None:
        self.img_suffix = suffixes_of(img_suffix)
        self.unlabelled: list[str] = []  # images without label file, where others have one
        super().__init__(diff_thr, strict=strict, check_pixels=check_pixels, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read all label files."""
        if 'img_path' not in self.data_prefix:
            raise ValueError(f"data_prefix={self.data_prefix}: the images' folder goes under the key 'img_path'")
        pairs = self._pairs()
        if not self.metainfo['classes']:
            raise ValueError(self._which_classes(pairs))
        self._begin()
        usable = self._keep_usable([self._or_none(self._describe, *pair) for pair in pairs])
        if self.ann_file:
            self._end(self.ann_file)
        return usable

    def _pairs(self) -> list[Pair]:
        """List the images by name, each with its label file."""
        images = list_folder(self.data_prefix['img_path'], self.img_suffix, "data_prefix['img_path']", self.data_root)
        labels: dict[str, Path] = {}
        if self.ann_file:
            labels = list_folder(self.ann_file, self.LABELS, 'ann_file', self.data_root).files
            for stem in [s for s in labels if s.lower() in _NO_LABELS and s not in images.files]:
                del labels[stem]
            self._check_partners(images, labels)
        if images.others:
            endings = sorted({*self.img_suffix, *(Path(name).suffix.lower() for name in images.others)})
            warn(
                f'{images.path}: images of another ending than img_suffix are left out, {len(images.others)} in all '
                f'({some(images.others)}); img_suffix={tuple(ending[1:] for ending in endings)} takes them too'
            )
        self.unlabelled = [stem for stem in images.files if stem not in labels] if self.ann_file else []
        skipped = [] if self.NEED_ALL else self.unlabelled
        if skipped:
            warn(
                f'{self.ann_file}: {len(skipped)} of {len(images.files)} images have no label file and are left out '
                f'({some(skipped)})'
            )
        return [(stem, path, labels.get(stem)) for stem, path in images.files.items() if stem not in skipped]

    def _check_partners(self, images: Folder, labels: dict[str, Path]) -> None:
        lone = sorted(set(labels) - set(images.files))
        kinds = ' or '.join(self.LABELS)
        if lone:
            endings = ' or '.join(images.suffixes)
            there = [name for stem in lone for name in images.without(stem)]
            hint = f'; there is {some(there)}' if there else ''
            if not there and Path(lone[0]).suffix.lower() in IMAGES:
                hint = f': of {lone[0]} the label file is {Path(lone[0]).stem}{self.LABELS[0]}'
            raise FileNotFoundError(
                f'no {endings} image in {images.path!r} for {len(lone)} of the label files: {some(lone)}{hint}; '
                "add the images, set img_suffix (several: img_suffix=('png', 'jpg')), or remove the label files."
            )
        lone = sorted(set(images.files) - set(labels))
        if lone and (self.NEED_ALL or len(lone) == len(images.files)):
            raise FileNotFoundError(
                f'no {kinds} label file in {self.ann_file!r} for {len(lone)} of the images: {some(lone)}; '
                'an image without objects needs an empty one; without ann_file images are read without objects.'
            )

    def _which_classes(self, pairs: Sequence[Pair]) -> str:
        """Say that classes are missing, and which ones the label files name."""
        names: Counter[str] = Counter()
        for _, _, label in pairs:
            try:
                found = self._found(label, 1, 1)[0] if label is not None else ()
                names.update(item.name for _, item in found if isinstance(item, Annotation))
            except BrokenFileError:
                continue
        told = ', '.join(f'{name!r} ({count})' for name, count in names.most_common(20))
        example = repr(tuple(sorted(names)[:20])) if names else "('ship',)"
        return (
            f'{self.ann_file}: this format has no list of classes; write them as metainfo=dict(classes={example})'
            f'; the label files name {told or "none"}'
        )

    def _describe(self, stem: str, image: Path, label: Path | None) -> dict:
        width, height = self._check_image(image)
        return dict(
            img_id=stem,
            file_name=image.name,
            img_path=str(image),
            width=width,
            height=height,
            instances=[] if label is None else self._read(label, width, height),
        )

    def _read(self, path: Path, width: int, height: int) -> list[dict]:
        """Read the usable objects of one label file."""
        found, said = self._found(path, width, height)
        self._compare_size(path.stem, said, (width, height))
        return self._instances(path, found, width, height)

    def _found(self, path: Path, width: int, height: int) -> tuple[Found, tuple[int, int] | None]:
        """Return the objects of a label file, and the width and height that it says, if any."""
        raise NotImplementedError
