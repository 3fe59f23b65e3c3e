"""mmrotate's data sets with an XML file per image, which stop at a broken one, made to name and skip it.

Imports mmrotate.
"""

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from mmrotate.datasets import DIORDataset as HostDIORDataset
from mmrotate.datasets import HRSCDataset as HostHRSCDataset

from ..registry import DATASETS
from .broken import BrokenFileError, SkipsBrokenFiles


class _XMLFiles(SkipsBrokenFiles):
    def load_data_list(self) -> list[dict]:
        return self._keep_usable(super().load_data_list())

    def parse_data_info(self, img_info: dict[str, Any]) -> dict | None:
        return self._or_none(self._parse, img_info)

    def _parse(self, img_info: dict[str, Any]) -> dict:
        try:
            info = super().parse_data_info(img_info)
        except (ParseError, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            text = f'{type(error).__name__}: {error}'  # such as a field that is missing, or a class that is unknown
            raise BrokenFileError(f'{img_info["xml_path"]} cannot be used ({text})') from error
        if not self.backend_args:  # local files
            self._check_image(Path(info['img_path']))
        return info


@DATASETS.register_module()
class HRSCDataset(_XMLFiles, HostHRSCDataset):
    """mmrotate's HRSC2016, whose broken images and XML files are named, counted and left out.

    ``type='mmrotate_plugin.HRSCDataset'`` finds it from every scope.

    Args:
        strict: Raise at the first broken file.
        check_pixels: Decode every image at the start.
        kwargs: Of mmrotate's class.

    Raises:
        BrokenFileError: With `strict`; in a test for an image whose damage shows when it is decoded.
        ValueError: If no image can be used.
    """


@DATASETS.register_module()
class DIORDataset(_XMLFiles, HostDIORDataset):
    """mmrotate's DIOR-R, whose broken images and XML files are named, counted and left out.

    Arguments and errors are those of `HRSCDataset`.
    """
