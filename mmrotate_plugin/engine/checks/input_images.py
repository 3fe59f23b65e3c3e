"""Check that images, data preprocessor and backbone agree on channels and scale."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray
from torch import nn

from ...datasets.utils.broken_files import read_whole_header
from ...datasets.utils.image_headers import ImageKindError
from ...datasets.utils.loader_check import find_loader, judge
from ...datasets.utils.wrappers import leaves
from ...utils.errors import ImageError, UsageError

GREY_LEVELS = 256  # of the images that means and standard deviations below it are for
COLOURS = 3
# backbones that read three channels unless `in_channels` says otherwise
READ_COLOURS = ('ResNet', 'ReResNet', 'ADFResNet', 'ResNetV1d', 'ResNeXt', 'Res2Net', 'ResNeSt')


def check_config(cfg: Config) -> None:
    """Compare the lengths that a config's model gives.

    Raises:
        UsageError: If `mean` and `std` do not fit `in_channels`, or colours are swapped where there are none.
    """
    model: Mapping[str, Any] = cfg.model
    while isinstance(model.get('detector'), Mapping):
        model = model['detector']
    given, backbone = model.get('data_preprocessor'), model.get('backbone')
    if not isinstance(given, Mapping) or not isinstance(backbone, Mapping):
        return
    kind = str(backbone.get('type')).rpartition('.')[2]
    channels = backbone.get('in_channels', COLOURS if kind in READ_COLOURS else None)
    lengths = {name: len(given[name]) for name in ('mean', 'std') if isinstance(given.get(name), (list, tuple))}
    reads = f'model.backbone ({kind}) reads {channels} channels'
    for name, length in lengths.items():
        if isinstance(channels, int) and length not in (1, channels):
            raise UsageError(
                f'model.data_preprocessor.{name} has {length} values, but {reads}: give {channels} values, or '
                f'model.backbone.in_channels={length}'
            )
    if len(set(lengths.values())) > 1:
        raise UsageError(
            f'model.data_preprocessor: mean has {lengths["mean"]} values and std has {lengths["std"]}; give as many'
        )
    if max(lengths.values(), default=1) not in (1, COLOURS) and given.get('type') in (
        'DetDataPreprocessor', 'mmdet.DetDataPreprocessor', 'ImgDataPreprocessor', 'mmengine.ImgDataPreprocessor'
    ):  # fmt: skip
        raise UsageError(
            f'model.data_preprocessor: {given["type"]} takes 1 or 3 values of mean, not {lengths["mean"]}; write '
            "type='mmrotate_plugin.DetDataPreprocessor', which takes one for each channel"
        )
    for name in ('bgr_to_rgb', 'rgb_to_bgr'):
        if given.get(name) and isinstance(channels, int) and channels != COLOURS:
            raise UsageError(f'model.data_preprocessor.{name}=True keeps three channels, but {reads}: set {name}=False')


def input_channels(model: nn.Module) -> int | None:
    """Return how many channels the first layer of a model's backbone reads; None if unknown."""
    backbone = getattr(model, 'backbone', None)
    stem, layers = getattr(backbone, 'conv1', None), getattr(backbone, 'stem', None)
    if stem is None and isinstance(layers, nn.Sequential):
        stem = layers[0]
    if stem is None:
        stem = getattr(getattr(backbone, 'patch_embed', None), 'projection', None)
    return getattr(stem, 'in_channels', None)


def check_image(model: nn.Module, image: NDArray[Any], name: str) -> None:
    """Compare an image, (H, W) or (H, W, C), with what a model takes.

    Raises:
        ImageError: If its channels are not those of the backbone or of the data preprocessor's `mean`, or its values
            are beyond the 8 bits that `mean` and `std` are for.
    """
    channels = 1 if image.ndim == 2 else image.shape[2]
    wanted = input_channels(model)
    if wanted is not None and channels != wanted:
        raise ImageError(
            f"{name} has {channels} channels as the pipeline's loader gives it, but model.backbone reads {wanted}: set "
            f"model.backbone.in_channels={channels}, or color_type ('grayscale' gives 1, 'color' 3, 'unchanged' those "
            'of the file) or channels of the loading step'
        )
    preprocessor = getattr(model, 'data_preprocessor', None)
    if getattr(preprocessor, '_channel_conversion', False) and channels != COLOURS:
        raise ImageError(
            f'{name} has {channels} channels, of which bgr_to_rgb or rgb_to_bgr of model.data_preprocessor keeps '
            'three; set it to False'
        )
    if preprocessor is None or not getattr(preprocessor, '_enable_normalize', False):
        return
    mean, std = preprocessor.mean.flatten(), preprocessor.std.flatten()
    if len(mean) not in (1, channels):
        raise ImageError(f'{name} has {channels} channels, but model.data_preprocessor.mean has {len(mean)} values')
    if image.dtype == np.uint8 or max(float(mean.max()), float(std.max())) >= GREY_LEVELS:
        return
    top = float(np.nanmax(image, initial=0))
    if top > GREY_LEVELS or (top <= 1 < float(mean.max())):
        raise ImageError(
            f'{name} has values up to {top:g}, but mean and std of model.data_preprocessor are for grey levels from 0 '
            "to 255: write type='mmrotate_plugin.LoadImageFromFile' with bit_depth= or white= in the pipelines, or "
            'mean and std in the units of the image'
        )


def check_first_image(model: nn.Module, dataset: Any) -> None:
    """Compare the first image of a data set, as its pipeline loads it, with what a model takes.

    Raises:
        ImageError: See `check_image`; and if the loader cannot read it right.
    """
    for part in leaves(dataset):
        loader = find_loader(getattr(getattr(part, 'pipeline', None), 'transforms', ()))
        if loader is None or not hasattr(part, 'get_data_info') or not len(part):
            continue
        info = part.get_data_info(0)
        path = info.get('img_path')
        try:
            image = loader(dict(info))['img']
            header = read_whole_header(Path(path)) if Path(path).is_file() else None
            if header is not None:
                judge(loader, Path(path), header, image)
        except ImageKindError as error:
            raise ImageError(str(error)) from error
        except Exception:  # damage, which the run tells
            continue
        check_image(getattr(model, 'module', model), image, f"'{path}'")
