"""Provide synthetic aerial scenes as an mmengine dataset, drawn from a seed, without files."""

import re
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.fileio import BaseStorageBackend, register_backend

from ...registry import DATASETS, register
from ...structures.corners import box_corners
from ...utils.typecheck import typed
from ..utils.class_names import classes_fault, complete_metainfo, did_you_mean
from ..utils.filter_cfg import filter_empty
from .scenes import ALL_ANGLES, CLASSES, PALETTE, draw_scene, lay_out, noise_levels

_URL = re.compile(
    r'synthetic://(\d+)x(\d+)/objects-(\d+)-(\d+)/scale-([\d.e+-]+)-([\d.]+)(?:/angles(-?[\d.]+)to(-?[\d.]+))?'
    r'(?:/noise-([\d.e+-]+)-([\d.e+-]+))?/synthetic-(\d+)-(\d+)\.png'
)


@register(DATASETS)
class SyntheticAerialDataset(BaseDataset):
    """Scenes with rotated ships, planes, storage tanks, lorries and cars.

    A sample already holds its image (`img`, uint8 BGR), so the pipeline needs no loading transform. With one it works
    too, as do hooks that load the image to draw predictions: `img_path` is a ``synthetic://`` address that mmengine's
    file client resolves. Annotations are eight-point polygons; read them with
    ``dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox')``.

    Args:
        length: Number of scenes.
        seed: Seed of the series. Take different ones for training, validation and test.
        size: Side of a square image or (width, height), in pixels.
        num_objects: Smallest and largest number of objects per scene, or one number; 0 gives empty scenes.
        scale: Smallest and largest factor on the objects' sizes.
        angles: Smallest and largest angle of rows, roads and single objects, degrees, clockwise. With (0, 0) they lie
            along the image's axes, to test a detector on angles that it was never trained on.
        noise_std: Standard deviation of white noise on the images, in grey levels: one number, or one for the left half
            and one for the right.
        cache: Keep painted images in memory (of each worker process; 3 x width x height bytes per scene).
        metainfo: `classes` may name some of CLASSES, in any order; other objects are drawn, but not annotated.
        filter_cfg: ``dict(filter_empty_gt=True)`` leaves out scenes without annotated objects while training.
        kwargs: Arguments of mmengine's BaseDataset: `pipeline`, `test_mode`, `indices`, `lazy_init`, ...

    Raises:
        ValueError: If an argument is out of range, or `classes` names what the scenes do not have.
    """

    METAINFO = {'classes': CLASSES, 'palette': PALETTE}

    @typed
    def __init__(
        self,
        *,
        length: int = 100,
        seed: int = 0,
        size: int | tuple[int, int] = 193,
        num_objects: int | tuple[int, int] = (6, 14),
        scale: tuple[float, float] = (0.9, 1.3),
        angles: tuple[float, float] = ALL_ANGLES,
        noise_std: float | tuple[float, float] = 0.0,
        cache: bool = False,
        **kwargs: Any,
    ) -> None:
        if length < 1:
            raise ValueError(f'length={length}: must be at least 1')
        for argument in ('ann_file', 'data_root'):
            if kwargs.get(argument):
                raise ValueError(
                    f'{argument}={kwargs[argument]!r}: the scenes are drawn, no file is read; leave it out'
                )
        kwargs['metainfo'] = complete_metainfo(kwargs.get('metainfo'), self.METAINFO)
        self.length = length
        self.seed = seed
        self.size = _pair(size)
        self.num_objects = _pair(num_objects)
        self.scale = float(scale[0]), float(scale[1])
        self.angles = float(angles[0]), float(angles[1])
        self.noise_std = noise_levels(noise_std)
        self.cache = cache
        self._images: dict[str, np.ndarray] = {}
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Lay out every scene; images are painted on demand."""
        classes = self.metainfo['classes']
        fault = classes_fault(classes)  # again, as they may come from a file
        if fault is not None:
            raise ValueError(f'metainfo: {fault}')
        unknown = [name for name in classes if name not in CLASSES]
        if unknown:
            meant = did_you_mean(unknown[0], CLASSES, loose=CLASSES)
            hint = f' (did you mean {meant!r}?)' if meant else ''
            raise ValueError(f'metainfo classes {unknown}{hint} are not in the scenes; these are: {", ".join(CLASSES)}')
        new_label = {CLASSES.index(name): label for label, name in enumerate(classes)}
        width, height = self.size
        folder = (
            f'synthetic://{width}x{height}/objects-{self.num_objects[0]}-{self.num_objects[1]}'
            f'/scale-{self.scale[0]}-{self.scale[1]}'
        )
        if self.angles != ALL_ANGLES:
            folder += f'/angles{self.angles[0]}to{self.angles[1]}'
        if any(self.noise_std):
            folder += f'/noise-{self.noise_std[0]}-{self.noise_std[1]}'
        data_list = []
        for index in range(self.length):
            sketch = lay_out(
                self.seed, index, size=self.size, num_objects=self.num_objects, scale=self.scale, angles=self.angles
            )
            instances = [
                dict(bbox=polygon.reshape(8).tolist(), bbox_label=new_label[label], ignore_flag=0)
                for label, polygon in zip(sketch.labels.tolist(), box_corners(sketch.rboxes), strict=True)
                if label in new_label
            ]
            name = f'synthetic-{self.seed}-{index}'
            data_list.append(
                dict(
                    img_id=name,
                    file_name=f'{name}.png',
                    img_path=f'{folder}/{name}.png',
                    width=width,
                    height=height,
                    instances=instances,
                )
            )
        return data_list

    def filter_data(self) -> list[dict]:
        """Apply `filter_cfg`; in test mode keep everything."""
        return filter_empty(self)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the labels of the objects in one scene."""
        return [instance['bbox_label'] for instance in self.get_data_info(idx)['instances']]

    def prepare_data(self, idx: int) -> dict | None:
        """Pass the annotations and the image of one scene through the pipeline."""
        results = self.get_data_info(idx)
        first = self.pipeline.transforms[:1]
        if not (first and type(first[0]).__name__.startswith('LoadImage')):  # the transform would paint it again
            image = self._image(results['img_path'])
            results['img'] = image
            results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return self.pipeline(results)

    def _image(self, path: str) -> np.ndarray:
        if not self.cache:
            return draw_address(path)
        if path not in self._images:
            self._images[path] = draw_address(path)
        return self._images[path].copy()  # transforms may write into it


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return first, second


def draw_address(address: str) -> np.ndarray:
    """Draw the image of a ``synthetic://`` address, (H, W, 3) uint8 BGR.

    Raises:
        ValueError: If it is no such address.
    """
    match = _URL.fullmatch(address)
    if match is None:
        raise ValueError(
            f'{address!r} is no address of a synthetic scene; they look like '
            'synthetic://193x193/objects-6-14/scale-0.9-1.3/synthetic-<seed>-<index>.png'
        )
    width, height, low, high, seed, index = (int(match[i]) for i in (1, 2, 3, 4, 11, 12))
    scale = float(match[5]), float(match[6])
    angles = ALL_ANGLES if match[7] is None else (float(match[7]), float(match[8]))
    noise = 0.0 if match[9] is None else (float(match[9]), float(match[10]))
    size, objects = (width, height), (low, high)
    return draw_scene(seed, index, size=size, num_objects=objects, scale=scale, angles=angles, noise_std=noise).image


class SyntheticBackend(BaseStorageBackend):
    """Let mmengine's file client read ``synthetic://`` addresses, as PNG files."""

    def get(self, filepath: str) -> bytes:
        """Paint the scene of an address and encode it."""
        return cv2.imencode('.png', draw_address(str(filepath)))[1].tobytes()

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """Refuse: a scene is not a text."""
        raise ValueError(f'{filepath} is an image, it has no text in {encoding}')


register_backend('synthetic', SyntheticBackend, prefixes='synthetic', force=True)
