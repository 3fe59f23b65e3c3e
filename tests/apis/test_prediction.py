"""`predict` from Python: sources of every kind, batches, videos; crops, GeoJSON and lines of text."""

import json
import math
from types import SimpleNamespace

import numpy as np
import prediction_data as data
import pytest
import torch

from mmrotate_plugin.apis import predict
from mmrotate_plugin.apis.georeference import Georeference, feature_collection, read_georeference
from mmrotate_plugin.apis.inference import Detector
from mmrotate_plugin.apis.prediction_sources import find_sources
from mmrotate_plugin.apis.video_frames import Video
from mmrotate_plugin.datasets.dota_format import Annotation, BadAnnotation, parse_line
from mmrotate_plugin.datasets.formats.detections import check_min_score, confident, dota_line
from mmrotate_plugin.structures.corners import box_corners
from mmrotate_plugin.utils.errors import ImageError, UsageError
from mmrotate_plugin.visualization import upright_crop


def names(source):
    return [(found.name, found.key) for found in find_sources(source)]


def test_sources_of_every_kind(tmp_path, monkeypatch):
    root = data.write_images(tmp_path / 'my data', ['a.png', 'b.x.JPG', 'sub/é.png', 'sub/a.png', 'c.png', 'c.bmp'])
    (root / '.hidden.png').write_bytes(b'')
    own = [('a.png', 'a'), ('b.x.JPG', 'b.x'), ('c.bmp', 'c.bmp'), ('c.png', 'c.png')]  # c would be taken twice
    assert names(root) == own
    assert names(str(root / '**/*.png')) == [
        ('a.png', 'a'), ('c.png', 'c'), ('sub/a.png', 'sub/a'), ('sub/é.png', 'sub/é')
    ]  # fmt: skip
    listed = root / 'list.TXT'
    listed.write_bytes('\ufeffa.png\r\n\r\n  sub/é.png \r\nmissing.png\r\na.png\r\n'.encode())
    assert [name for name, _ in names(listed)] == ['a.png', 'sub/é.png', 'missing.png']
    assert names([root / 'c.png', np.zeros((9, 9, 3), np.uint8)])[0][0].endswith('c.png')
    (root / '[1].png').write_bytes((root / 'a.png').read_bytes())
    assert names(str(root / '[1].png')) == [('[1].png', '[1]')]  # a name before it is a pattern
    monkeypatch.chdir(root / 'sub')
    assert names('a.png') == [('a.png', 'a')]
    data.write_video(root / 'clip.avi')
    assert names(root / 'clip.avi') == [('clip.avi', 'clip.avi')]


@pytest.mark.parametrize('text, words', [
    ('none.png', "image 'none.png' does not exist"), ('*.png', "no file matches the pattern '*.png'"),
    ('empty', "the folder 'empty' is empty"), ('empty.txt', "the list 'empty.txt' is empty"),
    ('wrong.txt', "none of the 2 paths in the list 'wrong.txt' exists; the first is 'ship 1'"),
    ('bytes.txt', 'bytes.txt is no text'), ('long.txt', 'none of the 1 paths in the list'),
    ('x' * 5000 + '.png', 'does not exist'),
])  # fmt: skip
def test_nothing_to_detect_on_is_one_line(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty.txt').write_text('\n \n')
    (tmp_path / 'wrong.txt').write_text('ship 1\nplane 2\n')
    (tmp_path / 'bytes.txt').write_bytes(b'a\0b')
    (tmp_path / 'long.txt').write_text('not a path ' * 500)
    with pytest.raises(UsageError) as error:
        find_sources(text)
    assert words in str(error.value) and '\n' not in str(error.value)


def test_three_lines_of_python(tmp_path):
    root = data.write_images(tmp_path, ['a.png', 'b.png'])
    (root / 'broken.png').write_bytes((root / 'a.png').read_bytes()[:90])
    failed = []
    results = list(predict(data.Bright(), root, on_error=lambda path, error: failed.append((path.name, str(error)))))
    assert [result.path.name for result in results] == ['a.png', 'b.png']
    assert failed[0][0] == 'broken.png' and 'its end is missing' in failed[0][1] and len(failed) == 1
    (first, _) = results
    assert first.names == ['ship', 'small plane'] and first.scores == pytest.approx([0.9, 0.6])
    # a drawn edge is up to a pixel wide, on either side
    assert np.abs(first.boxes[:, :4] - np.array(data.BOXES)[:, :4]).max() < 1.5
    assert first.polygons.shape == (2, 4, 2) and first.draw().dtype == np.uint8
    assert [len(result.boxes) for result in predict(data.Bright(), root / 'a.png', score_thr=0.7)] == [1]
    assert [len(result.boxes) for result in predict(data.Bright(), first.image)] == [2]


def test_frames_of_a_video_in_order(tmp_path):
    clip = data.write_video(tmp_path / 'clip.avi')
    results = list(predict(data.Bright(), clip))
    assert [result.frame for result in results] == list(range(6))
    ship = np.array([result.boxes[0, 0] for result in results])
    assert np.diff(ship) == pytest.approx(np.full(5, 2.0), abs=1)  # JPEG's blur moves an edge by less than a pixel
    video = Video(clip)
    assert (video.rate, video.count) == (10, 6)
    cut = tmp_path / 'cut.avi'
    cut.write_bytes(clip.read_bytes()[:400])
    errors = []
    assert list(predict(data.Bright(), [cut, clip], on_error=lambda *what: errors.append(what)))[-1].frame == 5
    assert len(errors) == 1 and errors[0][0] == cut


def images_of_sizes():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((20, 30), (40, 30), (20, 30), (30, 20)) * 2]


def mean_detector():
    detector = data.Bright()
    detector.model = data.Mean()
    detector.pipeline = lambda item: dict(inputs=torch.from_numpy(item['img']).permute(2, 0, 1), data_samples=None)
    return detector


def test_batches_of_mixed_sizes_are_grouped_by_size():
    detector, images = mean_detector(), images_of_sizes()
    expected = [float(image.mean()) / 255 for image in images]
    # float32 adds up to 3600 numbers: n eps / 2 bounds the error
    bound = 3600 * float(np.finfo(np.float32).eps) / 2
    found = Detector.detect_batch(detector, images, batch_size=3)
    assert [float(one.scores[0]) for one in found] == pytest.approx(expected, rel=bound)
    assert sorted(shape[0] for shape in detector.model.batches) == [1, 2, 2, 3]
    # control: one batch of all, which pads
    padded = detector.run([detector.pipeline({'img': image}) for image in images])
    worst = max(abs(float(one.pred_instances.scores[0]) / e - 1) for one, e in zip(padded, expected, strict=True))
    assert worst > 1000 * bound


def test_order_stays_whatever_the_batch(monkeypatch):
    monkeypatch.setattr(data.Bright, '__call__', Detector.__call__)
    images = images_of_sizes()
    expected = [float(image.mean()) / 255 for image in images]
    results = list(predict(mean_detector(), images, batch_size=2, score_thr=0))
    assert [float(result.scores[0]) for result in results] == pytest.approx(expected, rel=1e-3)
    assert [result.image is image for result, image in zip(results, images, strict=True)] == [True] * 8


@pytest.mark.parametrize('options, words', [
    (dict(batch_size=0), '--batch-size must be 1 or more'), (dict(score_thr=2), '--score-thr must be from 0 to 1'),
    (dict(patch_overlap=3), 'need --patch-size'), (dict(patch_size=64, batch_size=2), '--patch-batch-size is what'),
])  # fmt: skip
def test_options_that_cannot_work(options, words):
    with pytest.raises(UsageError, match=words):
        list(predict(data.Bright(), np.zeros((20, 20, 3), np.uint8), **options))


def test_sampled_noise_takes_no_batches():
    detector = mean_detector()
    detector.model.enabled, detector.model.method, detector.model.dropout_samples = True, 'monte_carlo', 0
    with pytest.raises(UsageError, match='draws random numbers for a whole batch'):
        detector.check_batch_size(2)
    detector.check_batch_size(1)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_crops_are_upright(dtype):
    """A linear function of the place: interpolation is exact, so each pixel of the crop tells where it was taken."""
    y, x = np.mgrid[:200, :300] + 0.5  # places of the centres of pixels
    image = np.stack([x, y, x + y], -1)
    image = (image if dtype == np.float32 else image.round()).astype(dtype)
    box = (150.0, 100.0, 60.0, 20.0, 0.4)
    crop = upright_crop(image, box)
    assert crop.shape == (20, 60, 3) and crop.dtype == dtype
    corners = box_corners(box)
    u, v = (np.arange(60) + 0.5) / 60, (np.arange(20) + 0.5) / 20
    place = corners[0] + u[None, :, None] * (corners[1] - corners[0]) + v[:, None, None] * (corners[3] - corners[0])
    # OpenCV interpolates at 1/32 of a pixel, half of it off in x and y; integers are rounded twice
    bound = 2 / 64 + (0 if dtype == np.float32 else 1)
    assert np.abs(crop[..., :2] - place).max() <= bound + 1e-3
    mirrored = upright_crop(image, (*box[:4], -0.4))  # control
    assert np.abs(mirrored[..., :2] - place).max() > 5


def test_crops_at_the_border_and_of_long_images():
    image = np.full((40, 40_000), 9, np.uint8)  # longer than OpenCV warps
    assert (upright_crop(image, (39_000, 20, 30, 10, 0)) == 9).all()
    corner = upright_crop(image, (0, 0, 20, 20, 0))
    assert (corner[:9, :9] == 0).all() and (corner[11:, 11:] == 9).all()
    assert (upright_crop(image, (-900, -900, 20.4, 0.2, 1)) == 0).all()
    assert upright_crop(image, (20, 20, 0.2, 0.1, 1)).shape == (1, 1)
    for box in ((1, 1, 40_000, 2, 0), (math.nan, 1, 2, 2, 0)):
        with pytest.raises(ValueError, match='side beyond|not finite'):
            upright_crop(image, box)


def test_geojson_is_in_the_coordinates_of_the_image():
    place = Georeference(np.array([[0.5, 0, 400_000], [0, -0.5, 5_000_000]]), 'urn:ogc:def:crs:EPSG::32632')
    content = json.loads(feature_collection(box_corners([(10, 20, 4, 2, 0)]), [{'score': 0.5}], place, 'a'))
    (feature,) = content['features']
    (ring,) = feature['geometry']['coordinates']
    assert ring[0] == ring[-1] and len(ring) == 5 and feature['properties'] == {'score': 0.5}
    assert sorted(map(tuple, ring[:-1])) == [
        (400_004.0, 4_999_989.5), (400_004.0, 4_999_990.5), (400_006.0, 4_999_989.5), (400_006.0, 4_999_990.5)
    ]  # fmt: skip
    x, y = np.array(ring).T - np.array([[400_000], [5_000_000]])
    assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() == pytest.approx(4)  # twice the area, counter-clockwise
    assert content['crs']['properties']['name'].endswith('32632')
    assert 'crs' not in json.loads(feature_collection(np.zeros((0, 4, 2)), [], Georeference(place.matrix, ''), 'a'))


def test_georeference_of_a_geotiff(tmp_path):
    rasterio = pytest.importorskip('rasterio')
    file = tmp_path / 'é place.tif'
    options = dict(driver='GTiff', width=30, height=20, count=3, dtype='uint8', crs='EPSG:32632')
    with rasterio.open(file, 'w', transform=rasterio.Affine(0.3, 0.1, 7, 0.1, -0.3, 9), **options) as out:
        out.write(np.zeros((3, 20, 30), np.uint8))
    place = read_georeference(file, (20, 30))
    assert place.crs == 'urn:ogc:def:crs:EPSG::32632'
    assert place(np.array([[4.0, 5.0]]))[0] == pytest.approx((0.3 * 4 + 0.1 * 5 + 7, 0.1 * 4 - 0.3 * 5 + 9))
    with pytest.raises(ImageError, match='turned or resized'):
        read_georeference(file, (30, 20))
    plain = data.write_images(tmp_path, ['a.png']) / 'a.png'
    assert read_georeference(plain, (100, 160)) is None


def geotiff(path, gcps=(), rpcs=None):
    rasterio = pytest.importorskip('rasterio')
    options = dict(driver='GTiff', width=300, height=200, count=3, dtype='uint8')
    points = [rasterio.control.GroundControlPoint(row=y, col=x, x=east, y=north) for x, y, east, north in gcps]
    with rasterio.open(path, 'w', **options) as out:
        out.write(np.zeros((3, 200, 300), np.uint8))
        if points:
            out.gcps = points, rasterio.crs.CRS.from_epsg(32632)
        if rpcs:
            out.rpcs = rpcs
    return path


def affine(x, y):
    return 5e5 + 0.3 * x + 0.1 * y, 5e6 + 0.1 * x - 0.3 * y


def bent(x, y):
    return affine(x, y)[0] + 1e-4 * x * y, affine(x, y)[1] - 2e-4 * x * x


GRID = [(x, y) for x in (0, 150, 300) for y in (0, 100, 200)]


@pytest.mark.parametrize('ground, grid', [(affine, [GRID[i] for i in (0, 2, 6, 8)]), (bent, GRID)])
def test_ground_control_points_place_an_image(ground, grid, tmp_path):
    """GDAL's polynomials are of degree 1 and 2, so these maps come back."""
    place = read_georeference(geotiff(tmp_path / 'a.tif', [(x, y, *ground(x, y)) for x, y in grid]), (200, 300))
    assert place.crs == 'urn:ogc:def:crs:EPSG::32632'
    points = np.array([[[3.5, 7.25], [299.0, 1.0]], [[120.0, 180.0], [0.0, 200.0]]])
    expected = np.stack(ground(points[..., 0], points[..., 1]), -1)
    # of float64 in a fit with squares of 5e6 pixels: a millionth of a pixel of 0.3 m is far above
    assert np.abs(place(points) - expected).max() < 1e-5
    assert np.abs(np.stack(affine(*np.moveaxis(points, -1, 0)), -1) - expected).max() > 1 or ground is affine
    assert place(np.zeros((0, 4, 2))).shape == (0, 4, 2)


@pytest.mark.parametrize('gcps', [[(0, 0, 5e5, 5e6), (10, 10, 5e5 + 3, 5e6 - 3)],
                                  [(i, i, 5e5 + i, 5e6 - i) for i in range(5)]])  # fmt: skip
def test_too_few_ground_control_points_are_refused(gcps, tmp_path):
    with pytest.raises(ImageError, match='ground control points that give no map') as caught:
        read_georeference(geotiff(tmp_path / 'a.tif', gcps), (200, 300))
    assert '\n' not in str(caught.value)


def test_rational_polynomials_are_refused(tmp_path):
    rpc = pytest.importorskip('rasterio.rpc').RPC
    one, lat, lon = ([float(i == place) for i in range(20)] for place in (0, 2, 1))
    rpcs = rpc(
        height_off=100, height_scale=500, lat_off=50, lat_scale=1, long_off=9, long_scale=1, line_off=100,
        line_scale=100, samp_off=150, samp_scale=150, line_num_coeff=lat, line_den_coeff=one, samp_num_coeff=lon,
        samp_den_coeff=one,
    )  # fmt: skip
    with pytest.raises(ImageError, match='RPCs.*gdalwarp -rpc'):
        read_georeference(geotiff(tmp_path / 'a.tif', rpcs=rpcs), (200, 300))


def test_without_rasterio_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'rasterio', None)
    with pytest.raises(UsageError, match='pip install rasterio'):
        read_georeference(SimpleNamespace(), (1, 1))


def test_lines_with_scores_are_detections():
    known = {'ship', 'small plane 2'}
    box = [1.0, 2, 3, 4, 5, 6, 7, 8]
    deviations = [0.1, 1, 1, 2, 2, 0.01]
    text = (
        dota_line(box, 'small plane 2', 0.75, deviations) + '\r\n' + dota_line(box, 'ship', 0.5) +
        dota_line(box, 'new', 0.9) + '1 2 3 4 5 6 7 8 ship\n1 2 3 4 5 6 7 8 ship 7\n1 2 3 4 5 6 7 8 ship 0.9 1\n'
    )  # fmt: skip
    found = list(confident(text, 0.5, lambda line: parse_line(line, known), numbers=8, known=known))
    assert [item.name for _, item in found if isinstance(item, Annotation)] == ['small plane 2', 'ship', 'new']
    assert [number for number, item in found if isinstance(item, BadAnnotation)] == [5, 6, 7]
    assert all(item.polygon == box for _, item in found if isinstance(item, Annotation))
    assert len(list(confident(text, 0.8, lambda line: parse_line(line, known), numbers=8, known=known))) == 4
    with pytest.raises(ValueError, match='min_score=2 must be from 0 to 1'):
        check_min_score(2)
