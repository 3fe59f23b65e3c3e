"""Read image files as the pipeline of a config does, or refuse them in one line."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray
from torch import nn

from ..datasets.synthetic.scenes import draw_scene
from ..datasets.transforms.loading import LoadImageFromFile
from ..datasets.utils.broken_files import read_whole_header
from ..datasets.utils.image_headers import ImageKind, ImageKindError
from ..datasets.utils.loader_check import describe, judge, reads_images
from ..engine.checks.input_images import input_channels
from ..utils.errors import ImageError, UsageError
from ..utils.messages import first_line, reason_of, warn


class ImageReader:
    """Read image files with the loader of a pipeline, and check what it returns.

    Args:
        loader: A transform that takes ``img_path``; None for `LoadImageFromFile` of this package, as it is by default.
    """

    def __init__(self, loader: Any | None = None) -> None:
        self.loader: Any = LoadImageFromFile() if loader is None else loader
        self._told: set[ImageKind] = set()

    @classmethod
    def of(cls, cfg: Config) -> 'ImageReader':
        """Make a reader with the loader of a config's test pipeline.

        Raises:
            UsageError: If the loader cannot be built.
        """
        from mmcv.transforms import Compose
        from mmdet.utils import get_test_pipeline_cfg

        steps = get_test_pipeline_cfg(cfg.copy()) if cfg.get('test_dataloader') else []
        step = next((dict(step) for step in steps if reads_images(str(step.get('type')))), None)
        if step is not None and isinstance(step['type'], str):
            # with the default scope mmdet, mmengine looks for a name of that scope there alone; loading is mmcv's
            step['type'] = step['type'].removeprefix(f'{cfg.get("default_scope")}.')
        if step is None:
            return cls()
        try:
            return cls(Compose([step]).transforms[0])
        except (KeyError, ValueError, TypeError, ImportError) as error:
            raise UsageError(f"the test pipeline's {step['type']} cannot be built: {reason_of(error)}") from error

    def __call__(self, path: Path) -> NDArray[Any]:
        """Read an image, (H, W) or (H, W, C), of several pages or frames the first.

        OpenCV reads up to 2^30 pixels (its OPENCV_IO_MAX_IMAGE_PIXELS), which take 3 GiB.

        Raises:
            ImageError: If it cannot be decoded, was cut off (OpenCV alone would return grey where data are missing),
                has too many pixels, or more bits or channels than the loader can tell what to do with.
        """
        header = read_whole_header(path)
        try:
            loaded: dict[str, Any] | None = self.loader({'img_path': str(path)})
            image: NDArray[Any] | None = None if loaded is None else loaded['img']
            note = None if header is None or image is None else judge(self.loader, path, header, image)
        except ImageKindError as error:
            raise ImageError(str(error)) from error
        except cv2.error as error:
            if 'MAX_IMAGE_PIXELS' in error.err:
                raise ImageError(
                    f"'{path}' has too many pixels: more than 2^30, or OPENCV_IO_MAX_IMAGE_PIXELS"
                ) from error
            raise ImageError(f"'{path}' cannot be decoded: {error.err}") from error
        except Exception as error:  # any decoder's, and those of a loader that is the user's own
            raise ImageError(f"'{path}' cannot be read by {describe(self.loader)}: {first_line(error)}") from error
        if image is None:
            raise ImageError(f"'{path}' is not an image that {describe(self.loader)} can read")
        if note is not None and header is not None and header.kind not in self._told:
            self._told.add(header.kind)
            warn(note)
        return image


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as (H, W, 3) in OpenCV's channel order, as `LoadImageFromFile` does by default.

    Raises:
        ImageError: See `ImageReader`.
    """
    return ImageReader()(path)


def scene_image(model: nn.Module, size: int) -> NDArray[np.uint8]:
    """Draw a synthetic scene with as many channels as a model takes, grey or repeated colours; (H, W, C)."""
    image = draw_scene(0, 0, size=size).image
    channels = input_channels(model) or image.shape[2]
    if channels == 1:
        grey: NDArray[np.uint8] = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
        return grey[..., None]
    return np.ascontiguousarray(image[..., [i % image.shape[2] for i in range(channels)]])
