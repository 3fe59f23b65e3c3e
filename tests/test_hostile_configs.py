"""Any value for any argument: it works, or a ValueError or TypeError names an argument."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from mmrotate_plugin.apis.config import load_config, parse_options
from mmrotate_plugin.datasets import DOTADataset, SyntheticAerialDataset
from mmrotate_plugin.models import ADFResNet, ReFPN, ReResNet, ResNet
from mmrotate_plugin.utils import messages
from mmrotate_plugin.utils.errors import UsageError
from mmrotate_plugin.utils.typecheck import fits, typed

ROOT = Path(__file__).parents[1]
FUZZ = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # to make a network smaller takes long
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MODEST = st.integers(-2, 40)  # a width of a billion is not wrong, it is large
texts = st.one_of(
    st.sampled_from(['', 'C8', 'C0', 'C-1', 'C9999999', 'D3', 'D', 'BN', 'none', 'diagonal', 'pytorch', '50', '\x00']),
    st.text(max_size=4),
)
plain = st.one_of(
    st.none(),
    st.booleans(),
    MODEST,
    st.floats(),
    texts,
    st.binary(max_size=2),
    st.sampled_from([8, 16, 18, 34, object]),
)
values = st.one_of(
    plain,
    st.lists(plain, max_size=5),
    st.lists(MODEST, max_size=5),
    st.lists(MODEST, max_size=4).map(tuple),
    st.dictionaries(st.sampled_from(['type', 'a', 'group', 'num_groups', 'layer']), plain, max_size=3),
)


def parameters(cls: type) -> set[str]:
    own = {name for name in inspect.signature(cls.__init__).parameters if name not in ('self', 'options', 'kwargs')}
    return own | (parameters(ResNet) if issubclass(cls, ResNet) and cls is not ResNet else set())


NETWORKS = {
    ResNet: dict(depth=18, base_channels=4),
    ReResNet: dict(depth=18, base_channels=8),
    ADFResNet: dict(depth=18, base_channels=4, noise_std=8, std=[1.0, 1.0, 1.0]),
    ReFPN: dict(in_channels=[8, 16], out_channels=8, num_outs=2),
}


@pytest.mark.parametrize('cls', NETWORKS, ids=lambda cls: cls.__name__)
@FUZZ
@given(data=st.data())
def test_networks_name_the_argument_that_is_wrong(cls, data):
    name = data.draw(st.sampled_from(sorted(parameters(cls) - {'init_cfg'})))
    value = data.draw(values, label=name)
    try:
        cls(**{**NETWORKS[cls], name: value})
    except (TypeError, ValueError) as error:
        assert any(known in str(error) for known in parameters(cls)), error
    except KeyError as error:  # mmengine's registries, of a type that is not registered
        assert isinstance(value, Mapping) and str(value.get('type')) in str(error.args[0]), error


@FUZZ
@given(data=st.data())
def test_data_sets_name_the_argument_that_is_wrong(data, tmp_path):
    cls = data.draw(st.sampled_from([SyntheticAerialDataset, DOTADataset]))
    name = data.draw(st.sampled_from(sorted(parameters(cls))))
    base = dict(length=2, size=64) if cls is SyntheticAerialDataset else dict(data_prefix=dict(img_path=str(tmp_path)))
    try:
        cls(**{**base, name: data.draw(values, label=name)})
    except FileNotFoundError:
        assert cls is DOTADataset  # there are no images; that an argument is wrong comes first
    except (TypeError, ValueError) as error:
        assert name in str(error), error


@FUZZ
@given(data=st.data())
def test_the_uncertain_detector_names_the_argument_that_is_wrong(data):
    pytest.importorskip('mmdet')
    from mmrotate_plugin.models.detectors import uncertain_detector
    from mmrotate_plugin.models.uncertainty.head_trace import UnsupportedDetector

    cls = uncertain_detector.UncertainDetector
    name = data.draw(st.sampled_from(sorted(parameters(cls))))
    base = {'detector': nn.Linear(1, 1), name: data.draw(values, label=name)}
    with pytest.raises((TypeError, ValueError, KeyError, UnsupportedDetector)) as error:
        cls(**base)
    said = str(error.value)
    assert any(known in said for known in parameters(cls)) or 'Linear' in said or name == 'detector', said


# ---- --cfg-options


@settings(FUZZ, max_examples=200)
@given(text=st.one_of(st.text(max_size=30), st.text('[](),=\'"0a.', max_size=40), st.text('([', max_size=3000)))
def test_any_text_after_cfg_options_is_read_or_refused(text):
    try:
        options = parse_options([text])
    except UsageError as error:
        assert str(error).startswith('--cfg-options ')
    else:
        assert list(options) == [text.partition('=')[0]]


@pytest.mark.parametrize(
    'pair, value',
    [('a.b=1', 1), ('a=1.5', 1.5), ('a=true', True), ('a=None', None), ('a=x=y', 'x=y'), ('a=1,2', [1, 2]),
     ('a=[(a,b),(c,d)]', [('a', 'b'), ('c', 'd')]), ('a=', ''), ('a=--b', '--b')],
)  # fmt: skip
def test_options_are_those_of_mmengine(pair, value):
    assert parse_options([pair]) == {pair.partition('=')[0]: value}


@pytest.mark.parametrize('pair', ['a', '=1', 'a..b=1', '.a=1', 'a=[(1,2', ''])
def test_options_of_another_form_are_refused(pair):
    with pytest.raises(UsageError, match='--cfg-options'):
        parse_options([pair])


WRONG = [
    ('model.backbone.depth=abc', ['depth']),
    ('model.backbone.norm_cfg=BN', ['norm_cfg']),
    ('model.backbone.group=C0', ['group=']),
    ('model.backbone.base_channels=12', ['base_channels=12']),
    ('model.backbone.nonsense=1', ['nonsense']),
    ('model.backbone.type=1', ['type']),
    ('model.neck.in_channels=5', ['in_channels']),
    ('model.bbox_head.num_classes=x', ['cannot be built']),
    ('model.backbone=None', ['cannot be built']),
    ('model=3', ['cannot be built', 'must be a dict']),
]


@pytest.mark.parametrize('option, said', WRONG)
def test_a_model_that_cannot_be_built_says_why(option, said, monkeypatch):
    pytest.importorskip('mmrotate')
    from mmrotate_plugin.apis.inference import build_model

    monkeypatch.setattr(messages, 'print_log', lambda *_, **__: None)
    logging.getLogger('mmengine').setLevel(logging.CRITICAL)
    with pytest.raises(UsageError) as error:
        build_model(load_config(f'{ROOT}/configs/synthetic/rotated-fcos_re18_fpn_synthetic.py', [option]))
    assert all(text in str(error.value) for text in said), error.value


# ---- types


@pytest.mark.parametrize(
    'value, kind, good',
    [
        (1, int, True), (True, int, False), (1.0, int, False), (1, float, True), ('1', float, False),
        (None, int | None, True), ([1], Sequence[int], True), ('ab', Sequence[str], False),
        ([1, 'a'], Sequence[int], False), ([1, 2], tuple[int, int], True), ([1], tuple[int, int], False),
        ({}, dict[str, Any], True), ([], Mapping[str, Any], False), (len, Callable[..., int], True),
        (nn.ReLU(), nn.Module, True), (3, Any, True),
    ],
)  # fmt: skip
def test_values_fit_types(value, kind, good):
    assert fits(value, kind) is good


def test_typed_names_the_argument_and_leaves_the_rest_alone():
    @typed
    def function(a: int, *more: int, b: 'Sequence[float] | None' = None, **options: int) -> tuple:
        """Text."""
        return a, more, b, options

    assert function(1, 'x', b=[1, 2.5], c='y') == (1, ('x',), [1, 2.5], {'c': 'y'})
    assert function.__doc__ == 'Text.' and list(inspect.signature(function).parameters) == ['a', 'more', 'b', 'options']
    with pytest.raises(TypeError, match=r"^b='abc' must be Sequence\[float\] \| None, not str$"):
        function(1, b='abc')
    with pytest.raises(TypeError, match=r"^a='x+\.\.\. must be int, not str$"):
        function('x' * 1000)
    with pytest.raises(TypeError, match='missing'):
        function()
