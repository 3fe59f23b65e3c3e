"""What is found in one image, with its picture and its crops."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.formats.boxes import box_of
from ..visualization import to_polygons, upright_crop
from ..visualization.palette import Colour
from ..visualization.pixels import Image, as_image
from .image_drawing import draw_detections
from .inference import Detections


@dataclass
class Prediction:
    """An image and what is found in it.

    Attributes:
        path: File of the image or video.
        image: (H, W) or (H, W, C), as the test pipeline reads it.
        found: Boxes, labels and scores, best first, with standard deviations where the detector gives some.
        classes: Class names.
        frame: Number of the frame of a video, counted from 0; None for an image.
    """

    path: Path
    image: NDArray[Any] = field(repr=False)
    found: Detections = field(repr=False)
    classes: Sequence[str] = field(repr=False)
    frame: int | None = None
    colours: Sequence[Colour] | None = field(default=None, repr=False)

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(N, 4), (N, 5) or (N, 8), pixels and radians, see `visualization.to_polygons`."""
        return self.found.boxes

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,), numbers of the classes."""
        return self.found.labels

    @property
    def scores(self) -> NDArray[np.float32]:
        """(N,), from 0 to 1, best first."""
        return self.found.scores

    @property
    def names(self) -> list[str]:
        """Names of the classes of the boxes, N."""
        known = len(self.classes)
        return [self.classes[i] if 0 <= i < known else str(i) for i in self.found.labels.tolist()]

    @property
    def polygons(self) -> NDArray[np.float64]:
        """(N, 4, 2), corners in pixels."""
        return to_polygons(self.found.boxes)

    def draw(self, bands: Sequence[int] | None = None) -> Image:
        """Draw the detections on a copy of the image, (h, w, 3) uint8 in OpenCV's channel order.

        Small images are enlarged, by a whole number. Standard deviations are drawn as bands.

        Args:
            bands: Channels, counted from 0, to draw as red, green and blue.

        Raises:
            ValueError: If there is no such channel.
        """
        target = Path(self.path.name)
        return draw_detections(as_image(self.image, bands), self.found, self, target)[target]

    def crops(self) -> list[NDArray[Any]]:
        """Cut each detection out of the image, turned upright with the side w along the rows; N, see `upright_crop`."""
        return [upright_crop(self.image, box) for box in self.upright_boxes()]

    def upright_boxes(self) -> list[Sequence[float]]:
        """Return the boxes as (cx, cy, w, h, angle), of four corners the smallest rectangle around them."""
        if self.found.boxes.shape[1] == 5:
            return [box.tolist() for box in self.found.boxes.astype(np.float64)]
        return [box_of(corners.ravel().tolist())[0] for corners in self.polygons]
