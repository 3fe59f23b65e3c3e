import types

import pytest
from torch import nn

from mmrotate_plugin.utils.contexts import temporary_attributes


class Layer(nn.Module):
    fast = True

    def __init__(self):
        super().__init__()
        self.output = 'mean'
        self.part = nn.Identity()
        self._width = 1

    @property
    def width(self):
        return self._width

    @width.setter
    def width(self, value):
        self._width = value

    def forward(self, x):
        return x


def test_values_hold_within_the_block_alone():
    layer = Layer()
    with temporary_attributes(layer, output='gaussian', width=3):
        assert (layer.output, layer.width) == ('gaussian', 3)
    assert (layer.output, layer.width) == ('mean', 1) and 'width' not in vars(layer)


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_an_exception_restores_them_too(error):
    layer = Layer()
    with pytest.raises(error), temporary_attributes(layer, output='gaussian'):
        raise error
    assert layer.output == 'mean'


def test_what_a_class_provides_stays_with_the_class(monkeypatch):
    layer = Layer()
    with temporary_attributes(layer, fast=False, forward=lambda x: -x):
        assert (layer.fast, Layer.fast, layer(2)) == (False, True, -2)
    assert layer(2) == 2 and not {'fast', 'forward'} & set(vars(layer))
    monkeypatch.setattr(Layer, 'fast', 'changed')
    assert layer.fast == 'changed'


def test_a_replaced_method_of_one_object_comes_back():
    layer = Layer()
    layer.forward = replaced = lambda x: 10 * x
    with temporary_attributes(layer, forward=lambda x: -x):
        assert layer(2) == -2
    assert layer.forward is replaced


def test_children_classes_modules_and_slots_can_be_owners():
    class Slots:
        __slots__ = ('a',)

    layer, slots, module = Layer(), Slots(), types.ModuleType('made_up')
    child, slots.a, module.flag = layer.part, 1, 1
    with temporary_attributes(layer, part=nn.ReLU()), temporary_attributes(Layer, fast=False):
        assert isinstance(layer.part, nn.ReLU) and layer.fast is False
    with temporary_attributes(slots, a=2), temporary_attributes(module, flag=2):
        assert slots.a == module.flag == 2
    assert layer.part is child and list(layer._modules) == ['part'] and Layer.fast is True
    assert slots.a == module.flag == 1


def test_a_misspelt_name_is_an_error_and_changes_nothing():
    layer = Layer()
    with pytest.raises(AttributeError, match='outptu'), temporary_attributes(layer, output='gaussian', outptu='mean'):
        raise AssertionError('the block must not run')
    assert layer.output == 'mean' and 'outptu' not in vars(layer)


def test_the_same_attribute_may_be_changed_in_nested_blocks():
    layer = Layer()
    with temporary_attributes(layer, fast=1):
        with temporary_attributes(layer, fast=2):
            assert layer.fast == 2
        assert layer.fast == 1
    assert 'fast' not in vars(layer)
