"""Heads, losses and transforms against the classes of the data, before the first iteration."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from torch import nn

pytest.importorskip('mmdet')

from mmdet.models.detectors.base import BaseDetector

from mmrotate_plugin.apis.config import load_config
from mmrotate_plugin.engine.checks import before_run
from mmrotate_plugin.engine.checks.head_classes import (
    classes_of,
    heads_of,
    labels_by_number,
    unlike_parts,
    wrong_count,
    wrong_heads,
)
from mmrotate_plugin.utils.errors import UsageError

ROOT = Path(__file__).parents[3]
FIVE = ('plane', 'ship', 'storage-tank', 'large-vehicle', 'small-vehicle')


class Head(nn.Module):
    def __init__(self, number, **attributes):
        super().__init__()
        self.num_classes = number
        for name, value in attributes.items():
            setattr(self, name, value)


class RPNHead(Head):
    pass


class Detector(BaseDetector):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)

    def loss(self, *_):
        pass

    predict = extract_feat = _forward = loss


def data(names=FIVE, **wrapped):
    return SimpleNamespace(metainfo={'classes': names}, **wrapped)


def roi_head(*numbers, **others):
    roi = nn.Module()
    roi.bbox_head = nn.ModuleList(Head(number) for number in numbers)
    for name, part in others.items():
        setattr(roi, name, part)
    return roi


@pytest.mark.parametrize(
    'parts, wrong',
    [
        (dict(bbox_head=Head(4)), ['model.bbox_head.num_classes=4']),
        (dict(bbox_head=Head(15)), ['model.bbox_head.num_classes=15']),
        (dict(roi_head=roi_head(5, 4)), ['model.roi_head.bbox_head[1].num_classes=4']),
        (dict(roi_head=roi_head(7, 4)), ['bbox_head[0].num_classes=7, model.roi_head.bbox_head[1].num_classes=4']),
        (dict(bbox_head_init=Head(5), bbox_head_refine=nn.ModuleList([Head(15)])), ['bbox_head_refine[0]']),
        (dict(roi_head=roi_head(5, mask_head=Head(80))), ['model.roi_head.mask_head.num_classes=80']),
        (dict(bbox_head=Head(5, loss_cls=Head(3))), ['model.bbox_head.loss_cls.num_classes=3']),
        (dict(teacher=Detector(bbox_head=Head(4)), bbox_head=Head(5)), ['model.teacher.bbox_head.num_classes=4']),
        # those that look for objects of any class, or for classes of another kind
        (dict(bbox_head=Head(5), rpn_head=Head(1)), []),
        (dict(bbox_head=Head(5), proposals=RPNHead(1)), []),
        (dict(roi_head=roi_head(5, mask_head=Head(80, class_agnostic=True))), []),
        (dict(roi_head=roi_head(5, semantic_head=Head(183))), []),
        (dict(bbox_head=Head(5), backbone=Head(1000)), []),
        (dict(bbox_head=Head(256), language_model=nn.Identity()), []),
        (dict(bbox_head=Head(5)), []),
    ],
)
def test_every_head_is_compared(parts, wrong):
    text = wrong_heads(Detector(**parts), data(), 'train_dataloader')
    assert (text is None) == (not wrong)
    for part in wrong:
        assert part in text and 'train_dataloader has 5 classes (plane, ship' in text and 'num_classes=5' in text


def test_the_option_in_the_message_is_one_that_works():
    text = wrong_heads(Detector(roi_head=roi_head(7, 4)), data(), 'train_dataloader')
    assert text.endswith(
        '--cfg-options model.roi_head.bbox_head.0.num_classes=5 model.roi_head.bbox_head.1.num_classes=5'
    )


@pytest.mark.parametrize(
    'weights, sigmoid, good',
    [([1.0] * 5, True, True), ([1.0] * 6, True, False), ([1.0] * 6, False, True), ([1.0] * 5, False, True),
     ([1.0] * 4, False, False), (None, True, True), (1.0, True, True)],
)  # fmt: skip
def test_weights_of_classes_are_counted(weights, sigmoid, good):
    loss = nn.Module()
    loss.class_weight, loss.use_sigmoid = weights, sigmoid
    text = wrong_heads(Detector(bbox_head=Head(5, loss_cls=loss)), data(), 'train_dataloader')
    assert good if text is None else not good and f'model.bbox_head.loss_cls.class_weight has {len(weights)}' in text


def test_other_networks_and_data_without_names_are_left_alone():
    plain = nn.Module()
    plain.head = Head(1000)
    assert wrong_heads(plain, data(), 'train_dataloader') is None
    assert wrong_heads(Detector(bbox_head=Head(4)), SimpleNamespace(metainfo={}), 'train_dataloader') is None
    assert wrong_heads(Detector(bbox_head=Head(4)), object(), 'train_dataloader') is None
    panoptic = SimpleNamespace(metainfo={'classes': FIVE, 'stuff_classes': FIVE[:1]})
    assert wrong_heads(Detector(bbox_head=Head(4)), panoptic, 'train_dataloader') is None
    assert wrong_count(Detector(bbox_head=Head(4)), FIVE, 'the config').endswith(
        'names 5 classes (' + ', '.join(FIVE) + ')'
    )


def test_a_detector_within_another_has_its_own_path():
    pytest.importorskip('mmrotate')
    from mmrotate_plugin.apis.inference import build_model

    option = 'model.detector.bbox_head.num_classes=4'
    cfg = load_config(str(ROOT / 'configs/adf/uncertain-rotated-fcos_re18_fpn_synthetic.py'), [option])
    model = build_model(cfg)
    assert [key for key, _ in heads_of(model)] == ['model.detector.bbox_head']
    with pytest.raises(UsageError, match=r'^model\.detector\.bbox_head\.num_classes=4, but .* model\.detector\.bbox_h'):
        before_run.check_heads(model, data(), 'val_dataloader')


def test_wrapped_data_sets():
    from mmdet.datasets import MultiImageMixDataset
    from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset

    from mmrotate_plugin.datasets import SyntheticAerialDataset

    inner = SyntheticAerialDataset(length=2, size=65)
    names = inner.metainfo['classes']
    wrapped = [RepeatDataset(inner, 2), ConcatDataset([inner, inner]), MultiImageMixDataset(inner, pipeline=[])]
    wrapped += [ClassBalancedDataset(inner, oversample_thr=0.1), SimpleNamespace(dataset=RepeatDataset(inner, 2))]
    for dataset in wrapped:
        assert classes_of(dataset) == names
        assert 'model.bbox_head.num_classes=4' in wrong_heads(Detector(bbox_head=Head(4)), dataset, 'train_dataloader')
    two = SimpleNamespace(datasets=[data(), data(FIVE[:4])])
    assert 'has 4 classes' in wrong_heads(Detector(bbox_head=Head(5)), two, 'train_dataloader')


def pipeline(*labels):
    step = dict(type='mmrotate.RandomRotate', rect_obj_labels=list(labels))
    nested = dict(type='RandomApply', transforms=[step])
    return dict(dataset=dict(type='RepeatDataset', dataset=dict(pipeline=[dict(type='LoadImageFromFile'), nested])))


def test_labels_by_number_are_classes_of_these_data():
    key = 'train_dataloader.dataset.dataset.pipeline[1].transforms[0].rect_obj_labels'
    for labels, missing in (([2, 9], '9'), ([5], '5'), ([9, 11, 12], '9, 11, 12'), ([-1], '-1')):
        wrong, doubtful, known = labels_by_number(pipeline(*labels), FIVE, 'train_dataloader')
        assert len(wrong) == 1 and wrong[0].startswith(
            f'{key}={labels}: the data set has no class of number {missing};'
        )
        assert not doubtful and not known

    twelve = tuple(f'c{i}' for i in range(12))
    wrong, doubtful, known = labels_by_number(pipeline(9, 11), twelve, 'train_dataloader')
    assert not wrong and not known and "9 is 'c9', 11 is 'c11' in this data set" in doubtful[0]
    assert "'storage-tank' and 'roundabout' of DOTA" in doubtful[0]

    dota = ('',) * 9 + ('storage-tank', 'harbor', 'roundabout')
    wrong, doubtful, known = labels_by_number(pipeline(9, 11), dota, 'train_dataloader')
    assert not wrong and not doubtful and "9 is 'storage-tank'" in known[0]
    wrong, doubtful, known = labels_by_number(pipeline(2), FIVE, 'train_dataloader')  # chosen for these data
    assert not wrong and not doubtful and "[2]: 2 is 'storage-tank'" in known[0]
    assert labels_by_number(dict(dataset=dict(pipeline=[])), FIVE, 'train_dataloader') == ([], [], [])
    assert labels_by_number(pipeline(), FIVE, 'train_dataloader') == ([], [], [])


def test_numbers_of_the_base_config_that_no_class_has_are_a_warning(monkeypatch):
    """mmrotate looks for a label in an image's labels, so one that no class has changes nothing."""
    key = 'train_dataloader.dataset.dataset.pipeline.1.transforms.0.rect_obj_labels'
    wrong, doubtful, known = labels_by_number(pipeline(9, 11), ('ship',), 'train_dataloader')
    assert not wrong and not known and len(doubtful) == 1
    assert 'no class of number 9, 11; its 1 classes (ship)' in doubtful[0] and 'has no effect' in doubtful[0]
    assert doubtful[0].endswith(f'or --cfg-options {key}=None')

    ten = tuple(f'c{i}' for i in range(10))
    wrong, doubtful, known = labels_by_number(pipeline(9, 11), ten, 'train_dataloader')
    assert not wrong and not known and len(doubtful) == 2
    assert 'no class of number 11;' in doubtful[0]
    assert "9 is 'c9' in this data set; the base config's numbers mean 'storage-tank' of DOTA" in doubtful[1]

    warned = []
    monkeypatch.setattr(before_run, 'warn', warned.append)
    before_run.check_labels(pipeline(9, 11), data(('ship',)), 'train_dataloader')
    assert len(warned) == 1 and 'no class of number 9, 11' in warned[0]
    with pytest.raises(UsageError, match='no class of number 12'):
        before_run.check_labels(pipeline(12), data(), 'train_dataloader')


def test_a_hosts_config_of_another_data_set_passes(monkeypatch):
    """RTMDet-L for HRSC2016, as mmrotate ships it: one class, and DOTA's numbers from its base."""
    mmrotate = pytest.importorskip('mmrotate')
    folder = Path(mmrotate.__file__).parent / '.mim/configs/rotated_rtmdet'
    config = Config.fromfile(folder / 'rotated_rtmdet_l-300e-aug-hrsc.py')
    warned = []
    monkeypatch.setattr(before_run, 'warn', warned.append)
    before_run.check_labels(config.train_dataloader, data(('ship',)), 'train_dataloader')
    assert len(warned) == 1 and 'rect_obj_labels=[9, 11]: the data set has no class of number 9, 11' in warned[0]


def test_joined_data_sets_have_the_same_classes():
    model = Detector(bbox_head=Head(5))
    joined = SimpleNamespace(datasets=[data(), SimpleNamespace(dataset=data(FIVE[::-1]))])
    with pytest.raises(UsageError, match="0 is 'plane' in the first and 'small-vehicle' in number 2. Give all"):
        before_run.check_heads(model, joined, 'train_dataloader')
    assert unlike_parts(model, SimpleNamespace(datasets=[data(), object(), data()]), 'train_dataloader') is None
    model.language_model = None
    assert unlike_parts(model, joined, 'train_dataloader') is None
