"""ONNX for operations of the moment rules that torch's tracing exporter cannot write."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

OPSET_FROM = 9
# erfc(z) = t exp(-z^2 + P(t)) with t = 1 / (1 + z / 2), to a relative 1.2e-7 for all z >= 0: Press et al., Numerical
# Recipes, 2nd edition, section 6.2. ONNX has erf, but 1 - erf(z) has lost all digits at z = 4
POLYNOMIAL = (
    0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368,
    -1.26551223,
)  # fmt: skip


@contextmanager
def moment_symbolics() -> Iterator[None]:
    """Within, the exporter knows them."""
    names = {'aten::erfc': _erfc, 'aten::exp2': _exp2, 'aten::expm1': _expm1}
    for name, symbolic in names.items():
        torch.onnx.register_custom_op_symbolic(name, symbolic, OPSET_FROM)
    try:
        yield
    finally:
        for name in names:
            torch.onnx.unregister_custom_op_symbolic(name, OPSET_FROM)


def _number(g: Any, value: float) -> Any:
    return g.op('Constant', value_t=torch.tensor(value))


def _erfc(g: Any, x: Any) -> Any:
    z = g.op('Abs', x)
    t = g.op('Reciprocal', g.op('Add', g.op('Mul', z, _number(g, 0.5)), _number(g, 1.0)))
    exponent = _number(g, POLYNOMIAL[0])
    for coefficient in POLYNOMIAL[1:]:
        exponent = g.op('Add', g.op('Mul', exponent, t), _number(g, coefficient))
    tail = g.op('Mul', t, g.op('Exp', g.op('Sub', exponent, g.op('Mul', z, z))))
    return g.op('Where', g.op('Less', x, _number(g, 0.0)), g.op('Sub', _number(g, 2.0), tail), tail)


def _exp2(g: Any, x: Any) -> Any:
    return g.op('Exp', g.op('Mul', x, _number(g, math.log(2))))


def _expm1(g: Any, x: Any) -> Any:
    # tanh(x / 2) (exp(x) + 1), which keeps the digits of small x
    half = g.op('Tanh', g.op('Mul', x, _number(g, 0.5)))
    return g.op('Mul', half, g.op('Add', g.op('Exp', x), _number(g, 1.0)))
