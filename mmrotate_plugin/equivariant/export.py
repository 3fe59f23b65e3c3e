"""The same function as plain torch layers, for inference: filters expanded, norms folded into the convolutions."""

import copy
import inspect
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import singledispatch

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .conv import _SteerableConv
from .fields import group_order
from .fourier import FourierConv2d, pays
from .norm import FieldNorm
from .pointwise import ennAvgPool, ennInterpolate, ennMaxPool, ennReLU


def export(module: nn.Module, *, fold_norms: bool = True, fourier: bool = False) -> nn.Module:
    r"""Copy a module, with plain torch layers in place of the equivariant ones.

    An `ennConv` becomes the `torch.nn.Conv2d` of its expanded filter, `ennBN` and `ennGN` a norm over tensor channels
    with the numbers of a field repeated for each orientation, the other layers their counterparts in torch.
    `ennGroupPool` alone stays, as it has none. Names stay too, so ``export(ReResNet(...), fold_norms=False)`` has the
    state dict of an ordinary ResNet. Folding replaces :math:`y = s (W * x + b - \mu) + \beta`, where
    :math:`s = \gamma / \sqrt{v + \epsilon}`, by

    .. math::
        y = (s W) * x + s (b - \mu) + \beta

    computed in float64 and rounded once, for equivariant and for plain layers alike.

    A batch norm is folded where the forward pass of the module that owns it, followed by `torch.fx`, hands it the
    output of one convolution that nothing else reads; names and their order decide nothing. Any other norm (before its
    convolution, behind a shared one, in a module that `torch.fx` cannot follow) stays, which changes the cost and not
    the function; a warning names it. Forward passes are followed with their default arguments: calling a part of a
    folded module apart from it, such as a convolution without the norm that was behind it, gives other values.

    Args:
        module: Any module with layers of this package in it: one layer, a backbone, a whole detector. It is not
            changed, and the copy shares no tensor with it. Hooks of replaced layers are not copied.
        fold_norms: Fold batch norms into the convolutions before them, and put `torch.nn.Identity` in their place.
        fourier: Compute wide 1x1 convolutions between fields of C_N by a Fourier transform over the orientations
            (`FourierConv2d`): fewer multiplications than any plain layer, measured to be faster on CPUs, the same
            function up to round-off. The copy then needs this package.

    Returns:
        The copy, in eval mode whatever the mode of `module`. Once norms are folded it is for inference: training it
        would train a network without them.

    Raises:
        ValueError: If an equivariant norm has no running statistics: those of a batch are shared by the orientations
            of a field, which no plain batch norm does. The message names the layer.
        TypeError: If a `FieldNorm` holds a norm that is neither a batch norm nor a group norm.
    """
    # the copy must train and load weights later, also if it is made in inference mode
    with torch.inference_mode(False), torch.no_grad():
        memo: dict[int, nn.Module] = {}  # deepcopy takes what it finds here, wherever the layer is referred to
        for name, layer in module.named_modules():
            if isinstance(layer, EQUIVARIANT):
                try:
                    memo[id(layer)] = _plain(layer)
                except (TypeError, ValueError) as error:
                    raise type(error)(f'cannot export {name or "the layer"}: {error}') from None
        plain = copy.deepcopy(module, memo)
        plain.eval()  # not in one expression: mmdet's ResNet returns nothing
        if fold_norms:
            _fold_norms_(plain)
        if fourier:
            orders = {
                id(memo[id(layer)]): group_order(layer.group)
                for layer in module.modules()
                if isinstance(layer, _SteerableConv)
                and layer.has_spectrum
                and pays(layer.in_fields, layer.out_fields, group_order(layer.group))
            }
            plain = _use_fourier(plain, orders)
    return plain


def _use_fourier(root: nn.Module, orders: dict[int, int]) -> nn.Module:
    """Put a `FourierConv2d` in place of each convolution whose id is given with the order of its group."""
    made = {id(conv): FourierConv2d(conv, orders[id(conv)]) for conv in root.modules() if id(conv) in orders}
    for parent in list(root.modules()):
        for name, child in parent._modules.items():
            if id(child) in made:
                parent._modules[name] = made[id(child)].eval()
    return made.get(id(root), root)


@singledispatch
def _plain(layer: nn.Module) -> nn.Module:
    """The plain counterpart of an equivariant layer. It owns its tensors."""
    raise TypeError(f'{type(layer).__name__} has no plain counterpart')


@_plain.register
def _(layer: _SteerableConv) -> nn.Module:
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
    if bias is not None:
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


# ennGroupPool stays: it is plain torch, and nn.MaxPool3d over (fields, |G|, H, W) takes thirty times as long
EQUIVARIANT = tuple(kind for kind in _plain.registry if kind is not object)


def _fold_norms_(root: nn.Module) -> None:
    """Fold what can be folded of a module in eval mode; warn of batch norms that stay."""
    for module in root.modules():
        # mmcv's ConvModule can fold on the fly, by reading statistics that an Identity does not have
        if getattr(module, 'efficient_conv_bn_eval_forward', None) is not None:
            module.efficient_conv_bn_eval_forward = None
    # not `children()`, which counts one with two names once
    places = Counter(id(child) for parent in root.modules() for child in parent._modules.values())
    for owner in list(root.modules()):
        if 'forward' not in vars(owner) and any(_foldable_norm(child) for child in owner.children()):
            for conv, norm in _pairs(owner):
                modules = owner.get_submodule(conv), owner.get_submodule(norm)
                if all(places[id(m)] == 1 for m in modules):
                    _fold_(*modules)
                    parent, _, leaf = norm.rpartition('.')
                    setattr(owner.get_submodule(parent), leaf, nn.Identity().eval())
    left = [name for name, module in root.named_modules() if name and isinstance(module, _BatchNorm)]
    if left:
        warnings.warn(
            f'{len(left)} batch norms are exported as they are, having no convolution to be folded into: '
            + ', '.join(left),
            stacklevel=3,
        )


class _Tracer(fx.Tracer):
    """Follows one forward pass and enters none of the modules that it calls."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002  torch's signature
        return True


def _pairs(owner: nn.Module) -> Iterator[tuple[str, str]]:
    """Names, in `owner`, of a convolution and of the norm that alone reads its output."""
    parameters = inspect.signature(owner.forward).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # torch.fx cannot guard every kind of default; nor need it
            graph = _Tracer().trace(owner, concrete_args=defaults)
    except Exception:  # a forward pass is any code; if it cannot be followed, its norms stay
        return
    calls = Counter(node.target for node in graph.nodes if node.op == 'call_module')
    for node in graph.nodes:
        if node.op != 'call_module' or len(node.all_input_nodes) != 1:
            continue
        (source,) = node.all_input_nodes
        if (
            source.op == 'call_module'
            and list(source.users) == [node]
            and calls[source.target] == calls[node.target] == 1
            and _foldable_conv(owner.get_submodule(source.target))
            and _foldable_norm(owner.get_submodule(node.target))
        ):
            yield source.target, node.target


def _foldable_conv(module: nn.Module) -> bool:
    # a subclass may do anything in its forward pass, such as standardising the filter
    return (
        isinstance(module, nn.Conv2d)
        and type(module).forward is nn.Conv2d.forward
        and type(module)._conv_forward is nn.Conv2d._conv_forward
        and 'weight' in module._parameters  # else it is computed, by spectral norm for one
        and not _altered(module)
    )


def _foldable_norm(module: nn.Module) -> bool:
    return (
        isinstance(module, _BatchNorm)
        and type(module).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
        and module.running_var is not None
        and not _altered(module)
    )


def _altered(module: nn.Module) -> bool:
    """Whether calling this instance does something besides its class's forward pass."""
    return bool(module._forward_hooks or module._forward_pre_hooks or 'forward' in vars(module))


def _fold_(conv: nn.Conv2d, norm: _BatchNorm) -> None:
    """Make the convolution what it and the norm were together."""

    def double(x: Tensor | None, default: float) -> Tensor:
        return norm.running_var.new_full((), default, dtype=torch.float64) if x is None else x.double()

    scale = double(norm.weight, 1) / (norm.running_var.double() + norm.eps).sqrt()
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    bias = scale * (double(conv.bias, 0) - norm.running_mean.double()) + double(norm.bias, 0)
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), conv.weight.requires_grad)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), conv.weight.requires_grad)
