"""The examples in docstrings run, and print what they say."""

import doctest
from importlib import import_module
from types import ModuleType

import pytest
import torch

MODULES = (
    'mmrotate_plugin.adf.calibration.fit',
    'mmrotate_plugin.adf.gaussian',
    'mmrotate_plugin.adf.noise_estimation',
    'mmrotate_plugin.equivariant.blur',
    'mmrotate_plugin.equivariant.export',
    'mmrotate_plugin.equivariant.fourier_relu',
    'mmrotate_plugin.equivariant.irrep_conv',
    'mmrotate_plugin.evaluation.metrics.uncertainty_metric',
    'mmrotate_plugin.testing.equivariance',
)


@pytest.mark.parametrize('name', MODULES)
def test_examples_run(name):
    torch.manual_seed(0)
    found = doctest.testmod(import_module(name))
    assert found.attempted > 0
    assert found.failed == 0


def test_a_wrong_example_fails(capsys):
    module = ModuleType('wrong', '>>> 1 + 1\n3\n')
    assert doctest.testmod(module).failed == 1
    assert 'Expected' in capsys.readouterr().out
