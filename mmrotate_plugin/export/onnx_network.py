"""The part of a detector that ONNX can hold: one module from the image to a flat tuple of named tensors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine.model import BaseModel
from torch import Tensor, nn

from ..adf import Gaussian, NoMomentRule
from ..adf._eval_mode import eval_mode
from ..adf.input_noise import fill_noise
from ..equivariant import export
from ..models import ADFResNet
from ..utils.contexts import temporary_attributes
from .config_rewrite import Unsupported

HEADS = ('bbox_head', 'rpn_head')
Noise = float | tuple[float, ...]


class Network(nn.Module):
    """Backbone and neck of a detector in eval mode, optionally with the first head.

    Args:
        detector: With a `backbone`; for an `UncertainDetector`, the detector within is used.
        heads: Also return the raw outputs of `bbox_head`, or of `rpn_head` in a two-stage detector. What follows them
            (boxes, non-maximum suppression, RoI heads) has no fixed shape, and stays in torch. A `ReFCOSHead` through
            which no variance passes gives decoded boxes and scores of all points instead.
        plain: Replace equivariant layers by plain ones, and fold batch norms if no variance passes them.

    Shape:
        - Input: (B, C, H, W), as the data preprocessor returns it.
        - Output: a tuple of tensors; after a call, `names` holds their names.

    Raises:
        Unsupported: If there is no backbone or no such head; when called, if a variance has no way through.
    """

    def __init__(self, detector: BaseModel, *, heads: bool = False, plain: bool = True) -> None:
        super().__init__()
        self.noise: Noise | None = None  # of the image; None if no variance is propagated
        inner = plain_detector(detector)
        backbone = getattr(inner, 'backbone', None)
        if not isinstance(backbone, nn.Module):
            raise Unsupported(f'{type(inner).__name__} has no backbone: nothing to write into an ONNX file')
        if inner is not detector:
            self.noise = detector.noise.variance
            if self.noise is None:
                raise Unsupported(
                    "noise_std='estimate' looks at each image; give a number of grey levels for ONNX, such as "
                    '--cfg-options model.noise_std=8'
                )
        elif isinstance(backbone, ADFResNet):
            self.noise = backbone.noise_variance
        head_names = [name for name in HEADS if isinstance(getattr(inner, name, None), nn.Module)]
        self.head_name = head_names[0] if head_names else None
        if heads and not head_names:
            raise Unsupported(
                f'{type(inner).__name__} has neither bbox_head nor rpn_head: export backbone and neck (--onnx features)'
            )
        self.roi_head = type(inner.roi_head).__name__ if getattr(inner, 'roi_head', None) is not None else None
        neck = getattr(inner, 'neck', None)
        used = nn.ModuleDict({'backbone': backbone})
        if neck is not None:
            used['neck'] = neck
        if heads:
            used['head'] = getattr(inner, head_names[0])
        if plain:
            used = nn.ModuleDict(dict(export(used, fold_norms=self.noise is None).named_children()))
        self.parts = used
        rule = backbone.variance if isinstance(backbone, ADFResNet) else 'diagonal'
        rule = detector.rule if inner is not detector else rule
        self.rule = 'diagonal' if rule in ('none', 'bfloat16') else rule  # runtimes may lack the type
        self.names: list[str] = []

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute all outputs, (B, ...) each, in the order of `names`."""
        with self._propagating(), eval_mode(self):
            try:
                return tuple(self._flat(self._run(image)))
            except NoMomentRule as error:
                raise Unsupported(f'the variance cannot pass: {error}') from error

    def _run(self, image: Tensor) -> list[tuple[str, Any]]:
        x: Any = image
        if self.noise is not None:
            x = Gaussian(image, fill_noise(self.noise, image), plain_mean=True, rule=self.rule)
        maps = self.parts['backbone'](x)
        if 'neck' in self.parts:
            maps = self.parts['neck'](maps)
        named = [(f'level{i}', value) for i, value in enumerate(maps)]
        if 'head' in self.parts:
            found = self._head_outputs(self.parts['head'], maps)
            named = (named if self.roi_head else []) + [(f'{self.head_name}_{name}', value) for name, value in found]
        return named

    def _head_outputs(self, head: nn.Module, maps: Any) -> list[tuple[str, Any]]:
        outputs = head(maps)
        decode: Any = getattr(head, 'decoded', None)
        if self.noise is None and decode is not None:
            return list(zip(('boxes', 'scores'), decode(*outputs), strict=True))
        return list(_leaves(outputs))

    def _flat(self, named: Sequence[tuple[str, Any]]) -> Iterator[Tensor]:
        self.names = []
        for name, value in named:
            gaussian = isinstance(value, Gaussian)
            self.names += [f'{name}_mean', f'{name}_var'] if gaussian else [name]
            yield from (value.mean, value.var) if gaussian else (value,)

    @contextmanager
    def _propagating(self) -> Iterator[None]:
        backbone = self.parts['backbone']
        if self.noise is None or not isinstance(backbone, ADFResNet):
            yield
            return
        with temporary_attributes(backbone, output='gaussian', variance=self.rule):
            yield


def plain_detector(model: BaseModel) -> BaseModel:
    """Unwrap the detector in an `UncertainDetector`; return any other as it is."""
    # not by its class: that would need mmdet to be imported
    return model.detector if type(model).__name__ == 'UncertainDetector' else model


def _leaves(value: Any, name: str = 'out') -> Iterator[tuple[str, Any]]:
    """Flatten nested outputs, named by their places: out0_level1 is level 1 of the first output."""
    if isinstance(value, (Tensor, Gaussian)):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _leaves(item, f'{name}{i}' if name == 'out' else f'{name}_level{i}')
