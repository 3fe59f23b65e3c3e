"""Write detections on a georeferenced image as GeoJSON, in the coordinates of the image."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.utils.image_headers import read_header
from ..utils.errors import ImageError, UsageError

WGS84 = 4326  # EPSG's number of the coordinates that GeoJSON has by itself


@dataclass(frozen=True)
class Georeference:
    """Where an image lies.

    Args:
        matrix: (2, 3), from a point (x, y, 1) in pixels to coordinates.
        crs: Name of their reference system, such as 'urn:ogc:def:crs:EPSG::32632'; '' for longitude and latitude of
            WGS 84; None if the image does not say.
    """

    matrix: NDArray[np.float64]
    crs: str | None

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map points (..., 2) in pixels, 0 at the border of the first pixel, to coordinates."""
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]


def need_rasterio() -> Any:
    """Import rasterio.

    Raises:
        UsageError: If it is not installed.
    """
    try:
        import rasterio
    except ImportError as error:
        raise UsageError(f'--save geojson needs rasterio, which reads where an image lies: pip install rasterio '
                         f'({error})') from error  # fmt: skip
    return rasterio


def read_georeference(path: Path, shape: Sequence[int]) -> Georeference | None:
    """Read where an image lies; None if it does not say.

    Args:
        path: A GeoTIFF, or any image that has a world file beside it.
        shape: (H, W) of the image as it was read.

    Raises:
        UsageError: If rasterio is not installed.
        ImageError: If the image was turned upright or otherwise resized when it was read.
    """
    rasterio = need_rasterio()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # most images lie nowhere, which it warns of
        try:
            with rasterio.open(path) as file:
                transform, crs, size = file.transform, file.crs, (file.height, file.width)
        except rasterio.errors.RasterioError:
            return None
    if transform.is_identity:
        return None
    with path.open('rb') as data:
        orientation = read_header(data).kind.orientation
    if size != tuple(shape[:2]) or orientation != 1:
        raise ImageError(
            f"'{path}' was turned or resized when it was read, so its coordinates are not those of the boxes: save it "
            'without EXIF orientation'
        )
    matrix = np.array([[transform.a, transform.b, transform.c], [transform.d, transform.e, transform.f]])
    if crs is None:
        return Georeference(matrix, None)
    number = crs.to_epsg()
    name = '' if number == WGS84 else f'urn:ogc:def:crs:EPSG::{number}' if number else crs.to_wkt()
    return Georeference(matrix, name)


def feature_collection(
    polygons: NDArray[np.float64], facts: Sequence[dict[str, Any]], place: Georeference, name: str
) -> str:
    """Write GeoJSON, a feature for each detection.

    RFC 7946 knows longitude and latitude of WGS 84 alone. Other coordinates are named by the member `crs` of its
    predecessor, which GDAL and QGIS read.

    Args:
        polygons: (N, 4, 2), pixels.
        facts: Properties of each.
        place: Where the image lies.
        name: Name of the collection.
    """
    features = []
    for corners, properties in zip(place(np.asarray(polygons, np.float64)), facts, strict=True):
        x, y = corners.T
        if x @ np.roll(y, -1) < y @ np.roll(x, -1):  # RFC 7946: counter-clockwise
            corners = corners[::-1]
        ring = [*corners.tolist(), corners[0].tolist()]
        geometry = {'type': 'Polygon', 'coordinates': [ring]}
        features.append({'type': 'Feature', 'properties': properties, 'geometry': geometry})
    head: dict[str, Any] = {'type': 'FeatureCollection', 'name': name}
    if place.crs != '':
        head['crs'] = None if place.crs is None else {'type': 'name', 'properties': {'name': place.crs}}
    return json.dumps({**head, 'features': features}, ensure_ascii=False, allow_nan=False) + '\n'
