"""Read DOTA's label files as they are, including header lines and careless annotations.

Xia et al., DOTA: A Large-scale Dataset for Object Detection in Aerial Images, CVPR 2018 (arXiv:1711.10398).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..registry import DATASETS
from ..utils.typecheck import typed
from .dota_format import parse_line, parse_text
from .folder_dataset import FolderDataset, Found
from .formats.detections import check_min_score, confident
from .utils.label_files import read_text

_V1 = {
    'plane': (165, 42, 42),
    'baseball-diamond': (189, 183, 107),
    'bridge': (0, 255, 0),
    'ground-track-field': (255, 0, 0),
    'small-vehicle': (138, 43, 226),
    'large-vehicle': (255, 128, 0),
    'ship': (255, 0, 255),
    'tennis-court': (0, 255, 255),
    'basketball-court': (255, 193, 193),
    'storage-tank': (0, 51, 153),
    'soccer-ball-field': (255, 250, 205),
    'roundabout': (0, 139, 139),
    'harbor': (255, 255, 0),
    'swimming-pool': (147, 116, 116),
    'helicopter': (0, 0, 255),
}
_V15 = {**_V1, 'container-crane': (220, 20, 60)}
_V2 = {**_V15, 'airport': (119, 11, 32), 'helipad': (0, 0, 142)}


@DATASETS.register_module()
class DOTADataset(FolderDataset):
    """DOTA-v1.0, with the arguments and samples of mmrotate's class of the same name.

    ``type='mmrotate_plugin.DOTADataset'`` finds it from every scope. Unlike mmrotate's class, it reads DOTA's own files
    (two header lines, CRLF, blank lines, no difficulty), knows the sizes of the images, and checks what it reads. It
    leaves out a line with missing or non-numeric fields, a box without area, or a box outside the image, and names
    these lines in one warning per file. A box that is partly inside stays as it is. Lines that look like another tool's
    format (YOLO-OBB, coordinates from 0 to 1, commas, ...) are recognised, and the format is named once.

    Objects are counted by class. One message per data set names the classes of label files that the config does not
    have, with their counts, the classes of the config that have no object, and other spellings of a name.

    It also leaves out images whose file is empty, cut off or not an image, or whose label file is not text, and names
    and counts them. Damage inside a file shows when it is decoded: training then takes another image, while testing
    raises, since leaving an image out would change the result.

    Args:
        diff_thr: Ignore objects with a higher difficulty, in training and test. With None, the default, test mode
            ignores all difficult objects (neither hits nor misses, as in DOTA's own evaluation), and training learns
            them like others. mmrotate's default of 100 ignores none.
        img_suffix: Suffix of the images, or several: ``('png', 'jpg')``. Capitals do not matter. Images with another
            suffix are left out, counted and named once.
        strict: Raise at the first line, image or label file that cannot be used.
        check_pixels: Decode every image at the start, to leave damaged ones out of a test as well. Takes minutes for
            thousands of images.
        min_score: Read detections as labels, in the lines that ``predict --save dota`` writes, and take those of this
            score or more. None: a line with a score is no label, and is left out like other bad lines.
        kwargs: Arguments of mmengine's BaseDataset. `ann_file` is the folder of label files,
            ``data_prefix['img_path']`` the folder of images; they may be the same. Without `ann_file`, all images of
            the folder are read, without objects. `metainfo` may name some of the classes, or others; objects of other
            classes are left out and counted.

    Raises:
        FileNotFoundError: If a folder, its files, or the partner of an image or label file is missing.
        ValueError: If an argument is wrong, two images share a name, no image or no line can be used, no training
            object has a class of the config, or (`strict`) a line or a file cannot be used.

    Files are found by listing the two folders, so nothing in a label file can name a file elsewhere. Links in the
    folders are followed.
    """

    METAINFO = {'classes': tuple(_V1), 'palette': list(_V1.values())}
    UNIT = 'line'

    @typed
    def __init__(
        self,
        diff_thr: int | None = None,
        img_suffix: str | Sequence[str] = 'png',
        *,
        strict: bool = False,
        check_pixels: bool = False,
        min_score: float | None = None,
        **kwargs: Any,
    ) -> None:
        check_min_score(min_score)
        self.min_score = min_score
        super().__init__(diff_thr, img_suffix, strict=strict, check_pixels=check_pixels, **kwargs)

    def _found(self, path: Path, width: int, height: int) -> tuple[Found, None]:  # noqa: ARG002
        text, known = read_text(path), self._census.known
        if self.min_score is not None:
            return confident(text, self.min_score, lambda line: parse_line(line, known), numbers=8, known=known), None
        return parse_text(text, known), None


@DATASETS.register_module()
class DOTAv15Dataset(DOTADataset):
    """DOTA-v1.5: one more class."""

    METAINFO = {'classes': tuple(_V15), 'palette': list(_V15.values())}


@DATASETS.register_module()
class DOTAv2Dataset(DOTADataset):
    """DOTA-v2.0: three more classes than v1.0."""

    METAINFO = {'classes': tuple(_V2), 'palette': list(_V2.values())}
