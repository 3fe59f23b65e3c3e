"""A small labelled data set, written by hand in each format, and what must be read from it."""

import json
import math
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 200, 120
# corners by the definition of a turned box, without the code under test
TURN = 0.4
CORNERS = [
    (100 + x * math.cos(TURN) - y * math.sin(TURN), 60 + x * math.sin(TURN) + y * math.cos(TURN))
    for x, y in ((-30, -8), (30, -8), (30, 8), (-30, 8))
]
SHIP = [value for corner in CORNERS for value in corner]
QUAD = [20.25, 30.5, 60.125, 34.0, 58.0, 52.75, 18.5, 47.0]  # no rectangle
CLASSES = ['Frégate légère', 'storage tank', 'ship']


def image(path: Path, width: int = WIDTH, height: int = HEIGHT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = cv2.imencode(path.suffix, np.full((height, width, 3), 90, np.uint8))[1]
    path.write_bytes(data.tobytes())  # OpenCV cannot write every name
    return path


def put(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def words(values, factor=1.0) -> str:
    return ' '.join(f'{value * factor:.9f}' for value in values)


def yolo(root: Path, lines: str | None = None, names=None, split='train', stem='a') -> Path:
    image(root / f'images/{split}/{stem}.png')
    if lines is not None:
        put(root / f'labels/{split}/{stem}.txt', lines)
    names = names or dict(enumerate(CLASSES))
    return put(root / 'data.yaml', f'train: images/train\nnames: {names}\n')


def yolo_line(polygon, number=2) -> str:
    sides = (WIDTH, HEIGHT) * 4
    return f'{number} ' + words([v / s for v, s in zip(polygon, sides, strict=True)])


def xml(*objects: str, width=WIDTH, height=HEIGHT) -> str:
    size = f'<size><width>{width}</width><height>{height}</height><depth>3</depth></size>'
    return f'<annotation verified="no">{size}{"".join(objects)}</annotation>'


def turned(name='ship', difficult=0, cx=100, cy=60, w=60, h=16, angle=TURN, kind='robndbox') -> str:
    box = ''.join(f'<{k}>{v}</{k}>' for k, v in dict(cx=cx, cy=cy, w=w, h=h, angle=angle).items())
    return (
        f'<object><type>{kind}</type><name>{name}</name><difficult>{difficult}</difficult>'
        f'<robndbox>{box}</robndbox></object>'
    )


def shape(points, label='ship', kind='polygon', **more) -> dict:
    return {'label': label, 'points': points, 'shape_type': kind, 'flags': {}, 'group_id': None, **more}


def labelme(*shapes, **more) -> str:
    return json.dumps({'version': '5.5.0', 'flags': {}, 'shapes': list(shapes), 'imagePath': 'a.png',
                       'imageData': None, 'imageHeight': HEIGHT, 'imageWidth': WIDTH, **more})  # fmt: skip


def coco(*annotations, names=CLASSES, images=('a.png',)) -> str:
    return json.dumps({
        'images': [{'id': i, 'file_name': n, 'width': WIDTH, 'height': HEIGHT} for i, n in enumerate(images, 1)],
        'annotations': [{'id': i, 'image_id': 1, 'category_id': 7, **one} for i, one in enumerate(annotations, 1)],
        'categories': [{'id': 5 + i, 'name': name} for i, name in enumerate(names)],
    })  # fmt: skip


def pairs(polygon):
    return [list(pair) for pair in zip(polygon[::2], polygon[1::2], strict=True)]


def farthest(one, other) -> float:
    """The largest distance of two boxes' corners, from whichever corner both are listed, in whichever direction."""
    a, b = np.reshape(one, (4, 2)), np.reshape(other, (4, 2))
    lists = [np.roll(way, k, 0) for way in (b, b[::-1]) for k in range(4)]
    return min(float(np.abs(a - way).max()) for way in lists)
