"""Express a detector in mmdet's and mmrotate's own classes: its model config and its weights."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..equivariant import ennBN, ennConv, ennGN, ennReLU, ennSyncBN, ennTrivialConv, export
from ..models import ADFResNet, ReFPN, ReResNet, ResNet
from ..models.layers import NORM_TYPES, Cfg
from ..models.losses.heteroscedastic_loss import HeteroscedasticLoss
from ..models.necks.re_fpn import ACTIVATIONS
from ..models.uncertainty.fitted_buffers import is_fitted
from .config_rewrite import Path, Unsupported, our_class, rewrite
from .standalone_modules import PREPROCESSOR, ROI_ALIGN

PLAIN_NORMS = {ennBN: 'BN', ennSyncBN: 'SyncBN', ennGN: 'GN'}
ADF_OPTIONS = ('noise_variance', 'noise_std', 'std', 'min_variance', 'dropout', 'mean', 'variance', 'output')
Sizes = Iterable[tuple[int, int]]


def plain_config(model: Mapping[str, Any], sizes: Callable[[], Sizes]) -> tuple[Cfg, list[str], set[str]]:
    """Rewrite the model of a config with classes of mmdet and mmrotate alone.

    ===================  =============================================================================
    here                 there
    ===================  =============================================================================
    ReResNet             ``mmdet.ResNet``, of the same depth, width, strides and norm
    ADFResNet            the same; it returns the means
    ReFPN                ``mmdet.FPN``, with the resampling that the sizes of the images need
    ReDet                ``mmdet.CascadeRCNN``
    UncertainDetector    the detector within
    ennConv, ennBN, ..   mmcv's convolution and norms, in any `conv_cfg`, `norm_cfg`, `act_cfg`
    DetDataPreprocessor  itself, in a file next to the config, unless there are 1 or 3 channels
    RiRoIAlignRotated    itself, in a file next to the config, since mmcv's is for CUDA only
    ===================  =============================================================================

    Args:
        model: The config's `model`. The default scope must be set.
        sizes: Returns (height, width) of images as the backbone gets them; called if there is a `ReFPN`.

    Returns:
        The config, notes for the user, and the names of `standalone_modules.PARTS` in it.

    Raises:
        Unsupported: For a part without a counterpart there; the message names its place in the config.
    """
    notes: list[str] = []
    parts: set[str] = set()
    found = our_class(model, ['MODELS'])
    if found is not None and found.__name__ == 'UncertainDetector':
        notes.append('model: the standard deviations of UncertainDetector stay here; its detector is exported')
        model = model['detector']

    def rule(cfg: Cfg, path: Path) -> Any:
        place = '.'.join(('model', *path))
        found = our_class(cfg, ['MODELS']) or _roi_layer(cfg)
        if found is None:
            return cfg
        name, cfg = found.__name__, {key: value for key, value in cfg.items() if key not in ('type', '_scope_')}
        if name == 'ReDet':
            return {'type': 'mmdet.CascadeRCNN', **cfg}
        if name == 'RiRoIAlignRotated':
            parts.add(ROI_ALIGN)
            return {'type': ROI_ALIGN, **cfg}
        if name == 'DetDataPreprocessor':
            if len(cfg.get('mean') or (0,)) in (1, 3):
                return {'type': 'mmdet.DetDataPreprocessor', **cfg}
            parts.add(PREPROCESSOR)
            return {'type': PREPROCESSOR, **cfg}
        if issubclass(found, ResNet):
            return _resnet(found, cfg, place, notes)
        if found is ReFPN:
            strides = (model.get('backbone') or {}).get('strides', (1, 2, 2, 2))
            indices = (model.get('backbone') or {}).get('out_indices', (0, 1, 2, 3))
            return _fpn(cfg, place, lambda: _level_sizes(sizes(), strides, indices))
        if found in (ennConv, ennTrivialConv):
            return _conv(cfg)
        if found in PLAIN_NORMS:
            return {'type': PLAIN_NORMS[found], **_without(cfg, 'group')}
        if found is HeteroscedasticLoss:
            notes.append(f'{place}: HeteroscedasticLoss becomes L1Loss; detections do not depend on it')
            return {'type': 'mmdet.L1Loss', 'loss_weight': cfg.get('loss_weight', 1.0)}
        if found is ennReLU:
            return {'type': 'ReLU', **_without(cfg, 'group')}
        raise Unsupported(f'{place}: {name} has no counterpart in mmdet; ONNX and safetensors can hold it (--formats)')

    return rewrite(model, rule), notes, parts


def plain_weights(model: nn.Module) -> 'OrderedDict[str, Tensor]':
    """Make the state dict of the detector that `plain_config` describes: filters expanded, norms kept, no gains.

    Args:
        model: The trained detector.
    """
    state = export(model, fold_norms=False).state_dict()
    losses = tuple(f'{name}.' for name, module in model.named_modules() if isinstance(module, HeteroscedasticLoss))
    return OrderedDict(
        (key, value.detach().cpu().contiguous())
        for key, value in state.items()
        if not (is_fitted(key) or key.startswith(losses))
    )


def _roi_layer(cfg: Cfg) -> type | None:
    """Look up a RoI layer as RoI extractors do, in `mmcv.ops` instead of a registry."""
    kind = str(cfg.get('type'))
    if not kind.endswith('RiRoIAlignRotated'):
        return None
    from mmcv import ops

    found = getattr(ops, kind, None)
    return found if getattr(found, '__module__', '').startswith('mmrotate_plugin.') else None


def _without(cfg: Cfg, *keys: str) -> Cfg:
    return {key: value for key, value in cfg.items() if key not in keys}


def _conv(cfg: Cfg) -> Cfg | None:
    """Turn a `conv_cfg` into that of plain convolutions; None if no other option is left."""
    rest = _without(cfg, 'type', 'group', 'frequencies_cutoff', 'maximum_offset')
    return {'type': 'Conv2d', **rest} if rest else None


def _norm(cfg: Cfg) -> Cfg:
    kind = NORM_TYPES[str(cfg['type']).rpartition('.')[2]]
    return {**_without(cfg, 'group'), 'type': kind.removeprefix('enn')}


def _without_any_angle(cfg: Cfg, kind: str, place: str) -> Cfg:
    """Leave out the arguments of any angle where they switch nothing on."""
    for name in ('any_angle', 'antialiased', 'act_blur'):
        if cfg.get(name):
            raise Unsupported(
                f'{place}: {name}={cfg[name]} of {kind} adds blurs, or activations over angles, for which mmdet has no '
                'layer; ONNX and safetensors can hold it (--formats)'
            )
    return _without(cfg, 'any_angle', 'antialiased', 'act_blur')


def _resnet(found: type[ResNet], cfg: Cfg, place: str, notes: list[str]) -> Cfg:
    """Rewrite a network of ours as `mmdet.ResNet`."""
    cfg = _without(cfg, 'init_cfg', 'pretrained')  # the weights come from the checkpoint
    if issubclass(found, ADFResNet):
        if cfg.get('mean', 'plain') != 'plain':
            raise Unsupported(
                f"{place}: mean='adf' gives the expected features of a noisy image, which no plain network computes; "
                "use mean='plain', or ONNX (--formats)"
            )
        drops = f' and dropout={cfg["dropout"]}' if cfg.get('dropout') else ''
        notes.append(f'{place}: mmdet.ResNet gives the means of ADFResNet; variances, gains{drops} are left out')
        cfg = _without(cfg, *ADF_OPTIONS)
    if issubclass(found, ReResNet):
        if cfg.get('avg_down') and max(cfg.get('strides', (1, 2, 2, 2))) > 1:
            raise Unsupported(
                f'{place}: avg_down=True of ReResNet averages centred windows of 2 * stride - 1 pixels, mmdet.ResNet '
                'windows of stride pixels; ONNX and safetensors can hold it (--formats)'
            )
        cfg = _without_any_angle(_without(cfg, 'group'), found.__name__, place)
        if cfg.get('norm_cfg') is not None:
            cfg['norm_cfg'] = _norm(cfg['norm_cfg'])
        if cfg.get('conv_cfg') is not None:
            cfg['conv_cfg'] = _conv(cfg['conv_cfg'])
    activation = cfg.pop('act_cfg', None) or {'type': 'ReLU'}
    if str(activation['type']).rpartition('.')[2] not in ('ReLU', 'ennReLU'):
        raise Unsupported(
            f'{place}: act_cfg={activation}: mmdet.ResNet knows ReLU alone; ONNX can hold it (--formats onnx)'
        )
    return {'type': 'mmdet.ResNet', **cfg, 'norm_eval': cfg.get('norm_eval', not issubclass(found, ReResNet))}


def _fpn(cfg: Cfg, place: str, sizes: Callable[[], list[list[tuple[int, int]]]]) -> Cfg:
    """Rewrite a `ReFPN` as `mmdet.FPN`."""
    cfg = _without_any_angle(_without(cfg, 'init_cfg', 'group'), 'ReFPN', place)
    if cfg.pop('group_pool', None) is not None:
        raise Unsupported(
            f'{place}: group_pool of ReFPN takes the maximum or mean over orientations, which mmdet.FPN cannot; '
            'ONNX and safetensors can hold it (--formats)'
        )
    start, end = cfg.get('start_level', 0), cfg.get('end_level', -1)
    stop = len(cfg['in_channels']) if end == -1 else end
    if end != -1:
        cfg['end_level'] = stop - 1  # the last level there, the one to stop before here
    if cfg.get('add_extra_convs'):
        cfg['add_extra_convs'] = 'on_input' if cfg.get('extra_convs_on_inputs', True) else 'on_output'
    cfg.pop('extra_convs_on_inputs', None)
    activation = ACTIVATIONS[cfg.pop('activation', None)]
    if activation is not None and activation['type'] != 'ReLU':
        raise Unsupported(f'{place}: mmdet has no activation {activation["type"]}; ONNX can hold it (--formats onnx)')
    if activation is not None:
        cfg['act_cfg'] = dict(activation)
    if cfg.get('norm_cfg') is not None:
        cfg['norm_cfg'] = _norm(cfg['norm_cfg'])
    if cfg.get('conv_cfg') is not None:
        cfg['conv_cfg'] = _conv(cfg['conv_cfg'])
    cfg['in_channels'] = list(cfg['in_channels'])
    if stop - start > 1:
        cfg['upsample_cfg'] = _resampling([levels[start:stop] for levels in sizes()], place)
    return {'type': 'mmdet.FPN', **cfg}


def _level_sizes(sizes: Sizes, strides: Sequence[int], indices: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Sizes of the backbone's maps, (height, width), for each image; stem, pooling and strides round up."""
    levels = []
    for size in sizes:
        here, maps = _divided(size, 4), []
        for stride in strides:
            here = _divided(here, stride)
            maps.append(here)
        levels.append([maps[i] for i in indices])
    return levels


def _divided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)


def _resampling(images: Sequence[Sequence[tuple[int, int]]], place: str) -> Cfg:
    """Choose the resampling that `re_fpn.upsample_to` does for these maps; mmdet's FPN knows one for all of them."""
    linear = {
        any(fine % coarse for fine, coarse in zip(a, b, strict=True))
        for levels in images
        for a, b in zip(levels, levels[1:], strict=False)
        if a != b and b != (1, 1)  # else both ways give the same
    }
    if len(linear) > 1:
        raise Unsupported(
            f'{place}: ReFPN repeats pixels where sizes are whole multiples and interpolates elsewhere, mmdet.FPN does '
            'one of the two, and the test pipeline makes images of both kinds. Let it make sides of 32m '
            '(data_preprocessor.pad_size_divisor=32) or of 32m + 1 (mmrotate_plugin.SymmetricResize) alone'
        )
    return {'mode': 'bilinear', 'align_corners': True} if linear == {True} else {'mode': 'nearest'}
