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
from ..utils.messages import first_line

FEWEST = 3  # ground control points
WGS84 = 4326  # EPSG's number of the coordinates that GeoJSON has by itself


@dataclass(frozen=True)
class Georeference:
    """Where an image lies.

    Args:
        matrix: (2, 3), from a point (x, y, 1) in pixels to coordinates; None if there are ground control points.
        crs: Name of their reference system, such as 'urn:ogc:def:crs:EPSG::32632'; '' for longitude and latitude of
            WGS 84; None if the image does not say.
        gcps: rasterio's ground control points. GDAL fits a polynomial, of degree 2 to six points or more, else of 1.
    """

    matrix: NDArray[np.float64] | None
    crs: str | None
    gcps: Sequence[Any] = ()

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map points (..., 2) in pixels, 0 at the border of the first pixel, to coordinates."""
        points = np.asarray(points, np.float64)
        if self.matrix is not None:
            return points @ self.matrix[:, :2].T + self.matrix[:, 2]
        if not points.size:
            return points
        from rasterio.transform import GCPTransformer

        flat = points.reshape(-1, 2)
        with GCPTransformer(self.gcps) as transformer:
            x, y = transformer.xy(flat[:, 1].tolist(), flat[:, 0].tolist(), offset='ul')
        return np.stack([x, y], -1).reshape(points.shape)


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
        path: A GeoTIFF with a transform or ground control points, or any image that has a world file beside it.
        shape: (H, W) of the image as it was read.

    Raises:
        UsageError: If rasterio is not installed.
        ImageError: If the image was turned upright or otherwise resized when it was read, its ground control points
            give no map, or it has rational polynomial coefficients alone, which need the height of the ground.
    """
    rasterio = need_rasterio()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # most images lie nowhere, which it warns of
        try:
            with rasterio.open(path) as file:
                transform, crs, size = file.transform, file.crs, (file.height, file.width)
                (gcps, gcps_crs), rpcs = file.gcps, file.rpcs
        except rasterio.errors.RasterioError:
            return None
    if transform.is_identity and not gcps:
        if rpcs is None:
            return None
        raise ImageError(
            f"'{path}' has rational polynomial coefficients (RPCs), which place a pixel by the height of the ground: "
            f"rectify it first, as by 'gdalwarp -rpc', or leave out --save geojson"
        )
    with path.open('rb') as data:
        orientation = read_header(data).kind.orientation
    if size != tuple(shape[:2]) or orientation != 1:
        raise ImageError(
            f"'{path}' was turned or resized when it was read, so its coordinates are not those of the boxes: save it "
            'without EXIF orientation'
        )
    if transform.is_identity:
        return _by_points(path, gcps, _crs_name(gcps_crs), size)
    matrix = np.array([[transform.a, transform.b, transform.c], [transform.d, transform.e, transform.f]])
    return Georeference(matrix, _crs_name(crs))


def _by_points(path: Path, gcps: Sequence[Any], crs: str | None, size: tuple[int, int]) -> Georeference:
    """Check that ground control points give a map of the whole image."""
    if len(gcps) < FEWEST:  # to two GDAL fits a map without turn
        raise ImageError(_no_map(path, gcps, 'too few'))
    place = Georeference(None, crs, tuple(gcps))
    height, width = size
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    try:
        ground = place(corners)
    except Exception as error:  # GDAL's, of classes without a common base
        raise ImageError(_no_map(path, gcps, first_line(error))) from error
    # of a polynomial that folds, or collapses to a line, the corners do not go round an area
    x, y = (ground - ground.mean(0)).T
    extent = float(np.ptp(x) * np.ptp(y))
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    if not (np.isfinite(ground).all() and area > 1e-6 * extent > 0):
        raise ImageError(_no_map(path, gcps, 'the corners of the image do not enclose an area'))
    return place


def _no_map(path: Path, gcps: Sequence[Any], why: str) -> str:
    return (
        f"'{path}' has {len(gcps)} ground control points that give no map ({why}): three or more are needed, not on a "
        'line'
    )


def _crs_name(crs: Any) -> str | None:
    if crs is None:
        return None
    number = crs.to_epsg()
    return '' if number == WGS84 else f'urn:ogc:def:crs:EPSG::{number}' if number else str(crs.to_wkt())


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
