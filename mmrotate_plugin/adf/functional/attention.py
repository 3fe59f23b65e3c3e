"""Attention, by the rules of its parts."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..gaussian import Gaussian, call
from ..moment_rules import NoMomentRule, moment_rule
from .linear import constants_only, linear
from .normalization import dropout
from .smooth import softmax

Value = Gaussian | Tensor
HIDDEN = -1e4  # in place of minus infinity, which has no moments


@moment_rule(F.scaled_dot_product_attention)
def attention(
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Gaussian:
    """Attention by its parts, `linear.matmul`, `smooth.softmax`, `normalization.dropout`: **approximate**.

    Query, key and value count as independent, and so do the weights of one query.

    Args:
        query, key, value: (..., L, E), (..., S, E), (..., S, E').
        attn_mask, dropout_p, is_causal, scale: As in `F.scaled_dot_product_attention`.
        enable_gqa: Must be False.

    Raises:
        NoMomentRule: If the mask is a Gaussian, or `enable_gqa` is set.
    """
    constants_only('scaled_dot_product_attention', attn_mask=attn_mask)
    if enable_gqa:
        raise NoMomentRule("'scaled_dot_product_attention' has no moment rule for enable_gqa=True: repeat the heads")
    masks = [] if attn_mask is None else [attn_mask]
    if is_causal:
        masks.append(torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril())
    weights = _dropped(_weights(query, key, masks, scale), dropout_p)
    return call(torch.matmul, weights, value)


@moment_rule(F.multi_head_attention_forward)
def multi_head_attention(
    query: Value,
    key: Value,
    value: Value,
    embed_dim_to_check: int,  # noqa: ARG001
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,  # noqa: ARG001  a hint: the mask is given too
) -> tuple[Gaussian, Any]:
    """Multi-head attention as in `torch.nn.MultiheadAttention`, by `attention`: **approximate**.

    Args:
        query, key, value: (L, B, E), (S, B, E), (S, B, E), or without B; the others as torch passes them.

    Returns:
        Output (L, B, E), and the weights: a `Gaussian` or a tensor (B, L, S), None unless `need_weights`.

    Raises:
        NoMomentRule: With `add_bias_kv`, `add_zero_attn` or static keys and values.
    """
    if bias_k is not None or bias_v is not None or add_zero_attn or static_k is not None or static_v is not None:
        raise NoMomentRule(
            "'multi_head_attention_forward' has no moment rule with add_bias_kv, add_zero_attn or static keys"
        )
    batched = query.dim() == 3
    inputs = [x if batched else x.unsqueeze(1) for x in (query, key, value)]
    projections: Any = (q_proj_weight, k_proj_weight, v_proj_weight)
    if not use_separate_proj_weight:
        projections = in_proj_weight.chunk(3)  # type: ignore[union-attr]
    biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
    b, width = inputs[0].shape[1], inputs[0].shape[2]
    heads = [  # (B, heads, L, E / heads)
        _linear(x, w, c).reshape(x.shape[0], b, num_heads, -1).permute(1, 2, 0, 3)
        for x, w, c in zip(inputs, projections, biases, strict=True)
    ]
    masks = [_kept(mask) for mask in (attn_mask,) if mask is not None]
    masks = [mask.reshape(b, num_heads, *mask.shape[1:]) if mask.dim() == 3 else mask for mask in masks]
    if key_padding_mask is not None:
        masks.append(_kept(key_padding_mask).reshape(b, 1, 1, -1))
    weights = _weights(heads[0], heads[1], masks, None)
    mixed = call(torch.matmul, _dropped(weights, dropout_p if training else 0.0), heads[2])
    out = _linear(mixed.permute(2, 0, 1, 3).reshape(-1, b, width), out_proj_weight, out_proj_bias)
    shown = None
    if need_weights:
        shown = call(torch.mean, weights, 1) if average_attn_weights else weights
    if not batched:
        out, shown = out.squeeze(1), None if shown is None else shown.squeeze(0)
    return out, shown


def _weights(query: Value, key: Value, masks: list[Tensor], scale: float | None) -> Value:
    """Compute the softmax of the scores; bool masks mark the scores to keep, others are added."""
    scores = call(torch.matmul, query, key.transpose(-2, -1))
    scores = scores * (1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale)
    for mask in masks:
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, HIDDEN)
        scores = scores + mask.clamp_min(HIDDEN)
    return softmax(scores, -1) if isinstance(scores, Gaussian) else scores.softmax(-1)


def _dropped(weights: Value, p: float) -> Value:
    if not p:
        return weights
    return dropout(weights, p) if isinstance(weights, Gaussian) else F.dropout(weights, p)


def _linear(x: Value, weight: Tensor, bias: Tensor | None) -> Any:
    return linear(x, weight, bias) if isinstance(x, Gaussian) else F.linear(x, weight, bias)


def _kept(mask: Tensor) -> Tensor:
    """Convert a mask to that of `attention`: here a bool mask marks what to leave out."""
    return ~mask if mask.dtype == torch.bool else mask
