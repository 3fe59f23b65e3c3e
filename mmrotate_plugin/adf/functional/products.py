"""Sums of products: einsum, and products plus a term."""

from typing import Any

import torch
from torch import Tensor

from ..gaussian import Gaussian, call
from ..moment_rules import NoMomentRule, moment_rule
from .arithmetic import add, mul
from .linear import bmm, matmul, mm

Value = Gaussian | Tensor


@moment_rule(torch.addmm, Tensor.addmm, Tensor.addmm_)
def addmm(x: Value, mat1: Value, mat2: Value, *, beta: float = 1, alpha: float = 1) -> Gaussian:
    """A matrix plus a product of two, by `linear.mm`: **exact if independent**."""
    return _plus(x, mm, mat1, mat2, beta, alpha)


@moment_rule(torch.baddbmm, Tensor.baddbmm, Tensor.baddbmm_)
def baddbmm(x: Value, batch1: Value, batch2: Value, *, beta: float = 1, alpha: float = 1) -> Gaussian:
    """A batch of matrices plus products of two, by `linear.bmm`: **exact if independent**."""
    return _plus(x, bmm, batch1, batch2, beta, alpha)


@moment_rule(torch.addmv, Tensor.addmv, Tensor.addmv_)
def addmv(x: Value, mat: Value, vec: Value, *, beta: float = 1, alpha: float = 1) -> Gaussian:
    """A vector plus a matrix times a vector, by `linear.matmul`: **exact if independent**."""
    return _plus(x, matmul, mat, vec, beta, alpha)


@moment_rule(torch.mv, Tensor.mv, torch.dot, Tensor.dot)
def mv(x: Value, vec: Value) -> Gaussian:
    """A matrix or a vector times a vector, by `linear.matmul`: **exact if independent**."""
    return matmul(x, vec)


@moment_rule(torch.addcmul, Tensor.addcmul, Tensor.addcmul_)
def addcmul(x: Value, tensor1: Value, tensor2: Value, *, value: float = 1) -> Gaussian:
    """A sum with a product of single values, by `arithmetic.mul`: **exact if independent**."""
    gaussian = isinstance(tensor1, Gaussian) or isinstance(tensor2, Gaussian)
    return add(x, mul(tensor1, tensor2) if gaussian else tensor1 * tensor2, alpha=value)


@moment_rule(torch.einsum, torch.functional.einsum)
def einsum(equation: Any, *operands: Any) -> Gaussian:
    r"""Einstein sum of one Gaussian and any constants, or of two Gaussians: **exact if independent**.

    .. math::
        v' = \sum C^2 v, \qquad v' = \sum \mu_a^2 v_b + v_a \mu_b^2 + v_a v_b

    C is the product of the constants, summed over the axes that neither the Gaussian nor the result has, since all of
    these terms multiply one value.

    Args:
        equation: As in `torch.einsum`, with letters; an ellipsis may stand for axes.
        operands: Tensors and Gaussians.

    Raises:
        NoMomentRule: For lists of axes, more than two Gaussians, or two and a constant.
    """
    if not isinstance(equation, str):
        raise NoMomentRule("'einsum' has a moment rule for an equation such as 'bi,ij->bj', not for lists of axes")
    values = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else list(operands)
    terms, result = _axes(equation, len(values))
    given = [i for i, value in enumerate(values) if isinstance(value, Gaussian)]
    if len(given) > 2 or (len(given) == 2 and len(values) > 2):
        raise NoMomentRule(
            f"'einsum' has a moment rule for one Gaussian and constants, or two Gaussians, not for {len(given)} of "
            f'{len(values)} operands: multiply in steps'
        )
    equation = f'{",".join(terms)}->{result}'
    mean = torch.einsum(equation, *(v.mu if isinstance(v, Gaussian) else v for v in values))
    # axes that only one Gaussian has are summed first: they meet the same factor
    for i in given:
        others = set(result).union(*(set(term) for j, term in enumerate(terms) if j != i))
        inner = ''.join(axis for axis in terms[i] if axis in others or axis == '.' or terms[i].count(axis) > 1)
        if inner != terms[i]:
            reduction = f'{terms[i]}->{inner}'
            values[i] = Gaussian(torch.einsum(reduction, values[i].mu), torch.einsum(reduction, values[i].v))
            terms[i] = inner
    wide = torch.promote_types(mean.dtype, torch.float32)
    if len(given) == 1:
        (i,) = given
        constants = [(term, value) for j, (term, value) in enumerate(zip(terms, values, strict=True)) if j != i]
        inputs, tensors = [terms[i]], [values[i].v.to(wide)]
        if constants:
            met = set(terms[i]) | set(result)
            left = '...' if any('...' in term for term, _ in constants) else ''
            left += ''.join(dict.fromkeys(a for term, _ in constants for a in term if a in met and a != '.'))
            factor = torch.einsum(f'{",".join(t for t, _ in constants)}->{left}', *(v for _, v in constants))
            inputs, tensors = [*inputs, left], [*tensors, factor.to(wide).square()]
        return Gaussian(mean, torch.einsum(f'{",".join(inputs)}->{result}', *tensors).to(mean.dtype))
    first, second = (values[i] for i in given)
    equation = f'{",".join(terms)}->{result}'
    (m1, v1), (m2, v2) = ((g.mu.to(wide), g.v.to(wide)) for g in (first, second))
    var = torch.einsum(equation, m1.square(), v2) + torch.einsum(equation, v1, m2.square() + v2)
    return Gaussian(mean, var.to(mean.dtype))


def _plus(x: Value, product: Any, a: Value, b: Value, beta: float, alpha: float) -> Gaussian:
    scaled = x if beta == 1 else mul(x, beta) if isinstance(x, Gaussian) else x * beta
    gaussian = isinstance(a, Gaussian) or isinstance(b, Gaussian)
    return add(scaled, product(a, b) if gaussian else call(torch.matmul, a, b), alpha=alpha)


def _axes(equation: str, operands: int) -> tuple[list[str], str]:
    """Parse the axes of each operand and of the result, which an equation may leave out."""
    left, arrow, result = equation.replace(' ', '').partition('->')
    terms = left.split(',')
    if len(terms) != operands:
        raise ValueError(f'the equation {equation!r} has {len(terms)} operands, but {operands} are given')
    if not arrow:
        letters = left.replace(',', '').replace('.', '')
        result = ('...' if '...' in left else '') + ''.join(sorted(a for a in set(letters) if letters.count(a) == 1))
    return terms, result
