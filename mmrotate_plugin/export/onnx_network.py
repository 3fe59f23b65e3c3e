"""The part of a detector that ONNX can hold, as one module from the image to a flat tuple of named tensors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..adf import Gaussian, NoMomentRule
from ..adf._eval_mode import eval_mode
from ..adf.input_noise import fill_noise
from ..equivariant import export
from ..models import ADFResNet
from .config_rewrite import Unsupported

HEADS = ('bbox_head', 'rpn_head')
Noise = float | tuple[float, ...]


class Network(nn.Module):
    """Backbone and neck, or these and the first head, of a detector in eval mode.

    Args:
        detector: With a `backbone`; `UncertainDetector` counts as the detector within.
        heads: The raw outputs of `bbox_head` too, or those of `rpn_head` in a two-stage detector. What follows them
            (boxes, non-maximum suppression, RoI heads) has no fixed shape, and stays in torch.
        plain: Put plain layers in place of equivariant ones, and fold batch norms where no variance passes them.

    Shape:
        - Input: (B, C, H, W), as the data preprocessor gives it.
        - Output: as many tensors as `names` says, once called.

    Raises:
        Unsupported: If there is no backbone or no such head; when called, if a variance has no way through.
    """

    def __init__(self, detector: nn.Module, *, heads: bool = False, plain: bool = True) -> None:
        super().__init__()
        self.noise: Noise | None = None  # of the image; None where no variance is propagated
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
        self.head_name = next((name for name in HEADS if isinstance(getattr(inner, name, None), nn.Module)), None)
        if heads and self.head_name is None:
            raise Unsupported(
                f'{type(inner).__name__} has neither bbox_head nor rpn_head: export backbone and neck (--onnx features)'
            )
        self.roi_head = type(inner.roi_head).__name__ if getattr(inner, 'roi_head', None) is not None else None
        neck = getattr(inner, 'neck', None)
        used = nn.ModuleDict({'backbone': backbone})
        if neck is not None:
            used['neck'] = neck
        if heads:
            used['head'] = getattr(inner, self.head_name)
        self.parts = export(used, fold_norms=self.noise is None) if plain else used
        rule = detector.rule if inner is not detector else getattr(backbone, 'variance', 'diagonal')
        self.rule = 'diagonal' if rule in ('none', 'bfloat16') else rule  # runtimes may lack the type
        self.names: list[str] = []

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
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
            found = list(_leaves(self.parts['head'](maps)))
            named = (named if self.roi_head else []) + [(f'{self.head_name}_{name}', value) for name, value in found]
        return named

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
        chosen = backbone.output, backbone.variance
        backbone.output, backbone.variance = 'gaussian', self.rule
        try:
            yield
        finally:
            backbone.output, backbone.variance = chosen


def plain_detector(model: nn.Module) -> nn.Module:
    """The detector in an `UncertainDetector`; another one itself."""
    # not by its class: that would need mmdet to be imported
    return model.detector if type(model).__name__ == 'UncertainDetector' else model


def _leaves(value: Any, name: str = 'out') -> Iterator[tuple[str, Any]]:
    """Tensors and Gaussians of nested outputs, named by their places: out0_level1 is level 1 of the first output."""
    if isinstance(value, (Tensor, Gaussian)):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _leaves(item, f'{name}{i}' if name == 'out' else f'{name}_level{i}')
