"""Check that a detector keeps the equivariance that its backbone and neck claim."""

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from numpy.typing import NDArray
from torch import Tensor, nn

from ..engine.checks import before_run
from ..engine.checks.checkpoint_classes import configured_classes
from ..engine.checks.input_images import check_image
from ..models import ResNet
from ..testing import (
    Fields,
    compare_fields,
    equivariance_curve,
    exact_elements,
    feature_fields,
    randomize_norms_,
)
from ..utils.errors import ImageError, UsageError
from ..visualization.plots.equivariance_table import MapErrors
from .checkpoint import load_weights
from .image_reader import ImageReader, scene_image
from .inference import build_model, image_pipeline

SIZE = 257  # pixels, if neither the pipeline nor an option says anything
VOID = 0.01  # a map that the turn changes by less can pass for equivariant without being so
PLAIN_OPTIONS = (
    'depth',
    'in_channels',
    'stem_channels',
    'base_channels',
    'num_stages',
    'strides',
    'dilations',
    'out_indices',
    'style',
    'deep_stem',
)

Element = tuple[int, bool]  # quarter turns, and whether a reflection comes first


def detector_to_check(cfg: Config, checkpoint: Mapping[str, Any] | None, path: str, device: torch.device) -> BaseModel:
    """Build a detector in eval mode, with the weights of a checkpoint or with random ones.

    Args:
        cfg: Its config.
        checkpoint: As `read_checkpoint` returns it; None for random weights and norms.
        path: File of the checkpoint, for messages.
        device: Where to put it.

    Raises:
        UsageError: If it cannot be built, has no backbone, or the weights do not fit.
    """
    torch.manual_seed(0)
    model = build_model(cfg)
    if not hasattr(model, 'backbone'):
        raise UsageError(f'the model of the config, {type(model).__name__}, has no backbone')
    if checkpoint is None:
        randomize_norms_(model)  # identity norms would hide an error
    else:
        load_weights(model, checkpoint, path)
        before_run.check_classes(
            cfg, checkpoint, path, configured_classes(cfg), whose='the config', result='the errors are the same'
        )
    return model.to(device).eval()


class Preparation:
    """Prepare images for the network: the test pipeline of a config, then the model's data preprocessor.

    Args:
        cfg: The config.
        model: Its model.
        size: Side that replaces those of the pipeline's resizing steps; None for those of the config.
    """

    def __init__(self, cfg: Config, model: BaseModel, size: int | None) -> None:
        from mmdet.utils import get_test_pipeline_cfg

        cfg = deepcopy(cfg)
        self.scale = size
        self.resizes = False
        for step in get_test_pipeline_cfg(cfg) if cfg.get('test_dataloader') else ():
            if step.get('scale') is None:
                continue
            self.resizes = True
            if size is not None:
                step['scale'] = (size, size)
            elif self.scale is None:
                self.scale = min(step['scale']) if isinstance(step['scale'], (tuple, list)) else int(step['scale'])
        self.pipeline = image_pipeline(cfg)
        self.read_file = ImageReader.of(cfg)
        self.model = model

    def read(self, path: str | None) -> NDArray[Any]:
        """Read an image, (H, W) or (H, W, C); without a path, draw a scene of the size that the pipeline makes.

        Raises:
            UsageError: If the file is not an image that the network can take.
        """
        if path is None:
            return scene_image(self.model, self.scale or SIZE)
        try:
            image = self.read_file(Path(path))
            check_image(self.model, image, f"'{path}'")
        except ImageError as error:
            raise UsageError(f'--img: {error}') from error
        if self.scale is not None and not self.resizes:  # --size, and the pipeline leaves images as they are
            image = cv2.resize(image, (self.scale, self.scale), interpolation=cv2.INTER_AREA)
        return image

    def __call__(self, image: NDArray[Any]) -> Tensor:
        """Turn an image, (H, W) or (H, W, C), into what the network sees, (1, C, H', W')."""
        data = self.pipeline({'img': np.ascontiguousarray(image), 'img_id': 0})
        batch = {'inputs': [data['inputs']], 'data_samples': [data['data_samples']]}
        inputs: Tensor = self.model.data_preprocessor(batch, False)['inputs']
        return inputs

    def all_turns(self, image: NDArray[Any], elements: Iterable[Element]) -> dict[Element, Tensor]:
        """Prepare all quarter turns of an image and the given elements, each turned before the pipeline."""
        wanted: dict[Element, None] = {(k, False): None for k in range(4)} | dict.fromkeys(elements)
        return {(k, flip): self(np.rot90(image[:, ::-1] if flip else image, k)) for k, flip in wanted}


def exact_turns(group: str | None) -> Sequence[Element]:
    """Return the turns that a group claims to be exact; without a group, the quarter turns that it would have to."""
    return ((1, False), (2, False), (3, False)) if group is None else exact_elements(group)


def circle(group: str | None, number: int | None) -> list[float]:
    """Return angles in degrees, from 0: `number` of them, or quarter turns, the group's angles and as many between."""
    if number is None:
        own = math.lcm(4, int(group[1:])) if group else 8
        number = own if own >= 16 else 2 * own
    return [360 * i / number for i in range(number)]


def measure(model: nn.Module, inputs: Mapping[Element, Tensor], degrees: Sequence[float]) -> dict[str, MapErrors]:
    """Measure the errors of each map of a model, by name.

    'image' is the input of the network, where only the pipeline can err. Quarter turns and reflections are those of the
    image before the pipeline; other angles are those of the input.

    Args:
        model: A detector, or a backbone.
        inputs: As `Preparation.all_turns` returns them.
        degrees: Angles of the circle, multiples of 90 among them.
    """

    def maps(x: Tensor) -> tuple[Fields, ...]:
        return (Fields('image', x, None), *feature_fields(model, x))

    x = inputs[0, False]
    before = maps(x)
    turned = {element: compare_fields(before, maps(y), 90 * element[0], element[1]) for element, y in inputs.items()}
    curve = equivariance_curve(maps, x, degrees=[angle for angle in degrees if angle % 90])
    rows: dict[str, MapErrors] = {}
    for i, field in enumerate(before):
        others = dict(zip(curve.degrees, curve.error.get(field.name, ()), strict=False))
        changed = dict(zip(curve.degrees, curve.change.get(field.name, ()), strict=False))
        whole = [others[d] if d in others else turned[int(d) // 90, False].error[i] for d in degrees]
        # a map that claims nothing is measured on all of them
        exact = [element for element in turned if element != (0, False)]
        exact = [element for element in exact if field.group is None or element in exact_turns(field.group)]
        changes = [turned[element].change[i] for element in exact]
        rows[field.name] = {
            'group': field.group,
            'exact': max((turned[element].error[i] for element in exact), default=math.nan),
            'at_45': whole[degrees.index(45)] if 45 in degrees else math.nan,
            'mean': sum(whole[1:]) / (len(whole) - 1),
            'change': min((c for c in changes if not math.isnan(c)), default=math.nan),
            'change_at_45': changed.get(45, math.nan),
            'curve': whole,
            'shape': tuple(field.values.shape[1:]),
        }
    return rows


def plain_resnet(cfg: Config, model: nn.Module) -> nn.Module | None:
    """Build an ordinary ResNet with random weights, of the depth and width of the backbone if that is a ResNet."""
    if not isinstance(model.backbone, ResNet):
        return None
    options = {key: cfg.model.backbone[key] for key in PLAIN_OPTIONS if key in cfg.model.backbone}
    return randomize_norms_(ResNet(**options)).to(next(model.parameters()).device).eval()


def judge(model: nn.Module, rows: Mapping[str, MapErrors], tol: float, size: tuple[int, int]) -> list[str]:
    """Return what contradicts the claim, one sentence each.

    Args:
        model: The detector.
        rows: Errors of its maps.
        tol: Largest error that counts as exact.
        size: Height and width of the network's input.
    """
    backbone = type(model.backbone).__name__
    group = getattr(model.backbone, 'group', None)
    if not isinstance(group, str):
        return [f'the backbone {backbone} claims no group: use ReResNet for an equivariant one']
    if not exact_elements(group):
        return [f"the group '{group}' of {backbone} has no turn that maps the pixel grid onto itself: nothing is exact"]
    claimed = {name: row for name, row in rows.items() if row['group'] is not None}
    failed = [name for name, row in claimed.items() if not row['exact'] <= tol]
    wrong = []
    if failed:
        wrong.append(
            f'{", ".join(failed)}: errors of up to {max(claimed[name]["exact"] for name in failed):.1e} at turns that '
            f'{group} claims to be exact (--tol {tol:g})'
        )
    void = [name for name, row in claimed.items() if not row['change'] >= VOID]
    if void:
        wrong.append(
            f'{", ".join(void)}: turns change the maps by less than {VOID:g}, so that their error says nothing'
        )
    if failed:
        wrong += _causes(rows, {name: claimed[name] for name in failed}, tol, size)
    return wrong


def _causes(
    rows: Mapping[str, MapErrors], failed: Mapping[str, MapErrors], tol: float, size: tuple[int, int]
) -> list[str]:
    """Say what in the pipeline or in the size of the input explains the errors."""
    causes = []
    if not rows['image']['exact'] <= tol:
        causes.append(
            f'the pipeline treats an image and its rotation differently (error of the input '
            f'{rows["image"]["exact"]:.1e}): resize with mmrotate_plugin.SymmetricResize and set '
            'model.data_preprocessor.pad_size_divisor=1'
        )
    strides = {name: stride(size, row['shape'][-2:]) for name, row in failed.items()}
    uneven = {name: s for name, s in strides.items() if any((side - 1) % s for side in size)}
    if uneven:
        need = max(uneven.values())
        fitting = ' x '.join(str(max(side - 1, need) // need * need + 1) for side in reversed(size))
        causes.append(
            f'the network sees {size[1]} x {size[0]} pixels, but sides must be {need}m + 1 for '
            f'{max(uneven, key=uneven.__getitem__)} (stride {need}) to keep the centre: resize to '
            f'{fitting}, with mmrotate_plugin.SymmetricResize and pad_size_divisor=1'
        )
    return causes


def stride(size: Sequence[int], small: Sequence[int]) -> int:
    """Return the least power of two that takes the input's size to that of a map."""
    step = 1
    while step < max(size) and any(-(-side // step) > s for side, s in zip(size, small, strict=True)):
        step *= 2
    return step
