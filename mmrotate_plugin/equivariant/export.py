"""Export a module to plain torch layers for inference, with expanded filters and folded norms."""

import copy
from functools import singledispatch

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ._fold_norms import fold_norms_
from .conv import _SteerableConv
from .fields import group_order
from .fourier import FourierConv2d, pays
from .irrep_conv import ennIrrepConv
from .norm import FieldNorm
from .pointwise import ennAvgPool, ennInterpolate, ennMaxPool, ennReLU


def export(module: nn.Module, *, fold_norms: bool = True, fourier: bool = False) -> nn.Module:
    r"""Copy a module with plain torch layers in place of the equivariant ones.

    An `ennConv` becomes the `torch.nn.Conv2d` of its expanded filter, `ennBN` and `ennGN` become norms over tensor
    channels with the numbers of a field repeated for each orientation, the other layers their counterparts in torch.
    `ennGroupPool`, `ennFourierReLU`, `ennSqueezeExcite` and the blurs stay: they have none, and consist of operations
    of torch. Names stay too, so ``export(ReResNet(...), fold_norms=False)`` has the
    state dict of an ordinary ResNet. Folding replaces :math:`y = s (W * x + b - \mu) + \beta`, where
    :math:`s = \gamma / \sqrt{v + \epsilon}`, by

    .. math::
        y = (s W) * x + s (b - \mu) + \beta

    computed in float64 and rounded once, for equivariant and for plain layers alike.

    A batch norm is folded if it alone reads the output of one convolution in the forward pass of their owner, which
    `torch.fx` follows; names and their order do not matter. Any other norm (before its convolution, behind a shared
    one, in a module that `torch.fx` cannot follow) stays: the function is the same, the cost is higher, and a warning
    names it. Forward passes are followed with their default arguments. Calling a part of a folded module separately,
    such as a convolution without the norm behind it, gives other values.

    Args:
        module: Any module that contains layers of this package: one layer, a backbone, a whole detector. It does not
            change, and the copy shares no tensor with it. Hooks of replaced layers are not copied.
        fold_norms: Whether to fold batch norms into the convolutions before them, leaving `torch.nn.Identity`.
        fourier: Whether to compute wide 1x1 convolutions between fields of C_N by a Fourier transform over the
            orientations (`FourierConv2d`): fewer multiplications than any plain layer, faster on CPUs, the same
            function up to round-off. The copy then needs this package.

    Returns:
        The copy, always in eval mode. With folded norms it is for inference: training it would train a network without
        norms.

    Raises:
        ValueError: If an equivariant norm has no running statistics: it shares batch statistics between the
            orientations of a field, which no plain batch norm does. The message names the layer.
        TypeError: If a `FieldNorm` holds a norm that is neither a batch norm nor a group norm.

    Example:
        >>> import torch
        >>> from mmrotate_plugin.equivariant import ennBN, ennConv, ennReLU, ennTrivialConv, export
        >>> net = torch.nn.Sequential(ennTrivialConv(3, 16, 3), ennBN(16), ennReLU(), ennConv(16, 32, 3)).eval()
        >>> plain = export(net)
        >>> [type(layer).__name__ for layer in plain]
        ['Conv2d', 'Identity', 'ReLU', 'Conv2d']
        >>> image = torch.randn(1, 3, 33, 33)
        >>> bool(torch.allclose(plain(image), net(image), atol=1e-5))
        True
    """
    # the copy must be able to train and load weights later, even if it is made in inference mode
    with torch.inference_mode(False), torch.no_grad():
        memo: dict[int, nn.Module] = {}  # deepcopy takes a replacement from here, wherever the layer is referenced
        for name, layer in module.named_modules():
            if isinstance(layer, EQUIVARIANT):
                try:
                    memo[id(layer)] = _plain(layer)
                except (TypeError, ValueError) as error:
                    raise type(error)(f'cannot export {name or "the layer"}: {error}') from None
        plain = copy.deepcopy(module, memo)
        plain.eval()  # not in one expression: mmdet's ResNet returns nothing
        if fold_norms:
            fold_norms_(plain)
        if fourier:
            orders = {
                id(memo[id(layer)]): group_order(layer.group)
                for layer in module.modules()
                if isinstance(layer, _SteerableConv)
                and layer.has_spectrum
                and layer.group[0] == 'C'
                and pays(layer.in_fields, layer.out_fields, group_order(layer.group))
            }
            plain = _use_fourier(plain, orders)
    return plain


def _use_fourier(root: nn.Module, orders: dict[int, int]) -> nn.Module:
    """Replace each convolution whose id is a key by a `FourierConv2d` of the order of its group."""
    made = {
        id(conv): FourierConv2d(conv, orders[id(conv)])
        for conv in root.modules()
        if id(conv) in orders and isinstance(conv, nn.Conv2d)
    }
    for parent in list(root.modules()):
        for name, child in parent._modules.items():
            if id(child) in made:
                parent._modules[name] = made[id(child)].eval()
    return made.get(id(root), root)


@singledispatch
def _plain(layer: nn.Module) -> nn.Module:
    """Make the plain counterpart of an equivariant layer, with tensors of its own."""
    raise TypeError(f'{type(layer).__name__} has no plain counterpart')


@_plain.register(_SteerableConv)
@_plain.register(ennIrrepConv)
def _(layer: _SteerableConv | ennIrrepConv) -> nn.Module:
    conv = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        bias=False,
        padding_mode=layer.padding_mode,
        device='meta',  # nothing to initialise, no random numbers drawn
    )
    conv.weight = nn.Parameter(layer.expand().contiguous(), layer.weight.requires_grad)
    bias = layer.expand_bias()
    if bias is not None and layer.bias is not None:
        conv.bias = nn.Parameter(bias, layer.bias.requires_grad)
    return conv


@_plain.register
def _(layer: FieldNorm) -> nn.Module:
    inner = layer.norm
    plain: nn.Module
    if isinstance(inner, nn.GroupNorm):
        # groups of whole fields are groups of consecutive channels: orientation is fastest
        plain = nn.GroupNorm(inner.num_groups, layer.num_features, inner.eps, inner.affine, device='meta')
    elif not isinstance(inner, _BatchNorm):
        raise TypeError(f'a FieldNorm of {type(inner).__name__} has no plain counterpart, only batch and group norms')
    elif inner.running_var is None:
        raise ValueError(
            'without running statistics, it takes those of the batch per field, and no plain batch norm does: '
            'use track_running_stats=True'
        )
    else:
        plain = nn.BatchNorm2d(layer.num_features, inner.eps, inner.momentum, inner.affine, device='meta')
    order = group_order(layer.group)
    for name, parameter in inner.named_parameters():
        setattr(plain, name, nn.Parameter(parameter.repeat_interleave(order), parameter.requires_grad))
    for name, buffer in inner.named_buffers():
        setattr(plain, name, buffer.repeat_interleave(order) if buffer.dim() else buffer.clone())
    return plain


@_plain.register
def _(layer: ennReLU) -> nn.Module:
    return nn.ReLU(layer.inplace)


@_plain.register
def _(layer: ennMaxPool) -> nn.Module:
    return nn.MaxPool2d(
        layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.return_indices, layer.ceil_mode
    )


@_plain.register
def _(layer: ennAvgPool) -> nn.Module:
    return nn.AvgPool2d(
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.ceil_mode,
        layer.count_include_pad,
        layer.divisor_override,
    )


@_plain.register
def _(layer: ennInterpolate) -> nn.Module:
    return nn.Upsample(layer.size, layer.scale_factor, layer.mode, layer.align_corners)


# ennFourierReLU and the blurs stay: they work for any number of channels, which a Conv2d cannot.
# ennGroupPool stays: it is plain torch, and nn.MaxPool3d over (fields, |G|, H, W) takes thirty times as long
EQUIVARIANT = tuple(kind for kind in _plain.registry if kind is not object)
