"""Class names: how a config may write them, which names of label files are meant, and what is counted."""

import logging

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS

from mmrotate_plugin.apis.config import load_config
from mmrotate_plugin.datasets import DOTADataset, SyntheticAerialDataset
from mmrotate_plugin.datasets.utils.class_names import did_you_mean, metainfo_fault
from mmrotate_plugin.engine.checks.dataset_classes import find_class_faults, has_objects, reader_hint
from mmrotate_plugin.utils import messages
from mmrotate_plugin.utils.errors import UsageError

BOX = '10 10 30 10 30 20 10 20'


@pytest.fixture
def said(monkeypatch):
    """What is said, with its level."""
    texts = []
    monkeypatch.setattr(messages, 'print_log', lambda text, logger, level: texts.append((level, text)))  # noqa: ARG005
    return texts


@pytest.fixture
def read(tmp_path):
    """Data set of images of 60 x 40 pixels, one for each list of class names."""

    def build(*files, classes=None, **options):
        for name in ('i', 'l'):
            (tmp_path / name).mkdir(exist_ok=True)
        for i, names in enumerate(files):
            cv2.imwrite(str(tmp_path / f'i/{i}.png'), np.zeros((40, 60, 3), np.uint8))
            (tmp_path / f'l/{i}.txt').write_text(''.join(f'{BOX} {name} 0\n' for name in names))
        options.setdefault('serialize_data', False)  # for it mmengine collects garbage: slow
        if classes is not None:
            options['metainfo'] = {'classes': classes}
        return DOTADataset(data_root=str(tmp_path), ann_file='l', data_prefix={'img_path': 'i'}, **options)

    return build


@pytest.mark.parametrize(
    'metainfo, words',
    [
        ({'classes': 'ship'}, "a comma is missing: classes=('ship',)"),
        ({'classes': 'plane, ship'}, "classes=('plane', 'ship')"),
        ({'classes': ''}, "a comma is missing: classes=('ship',)"),
        ({'classes': ()}, 'classes is empty'),
        ({'classes': None}, 'no list of names'),
        ({'classes': {0: 'ship'}}, 'no list of names'),
        ({'classes': {'ship', 'plane'}}, 'no list of names'),
        ({'classes': ('ship', 3)}, 'holds 3, which is no name'),
        ({'classes': ('ship', ' ')}, "holds ' ', which is no name"),
        ({'classes': ('plane', 'ship ')}, "holds 'ship ', with blanks at its ends; write 'ship'"),
        ({'classes': ('ship\t',)}, "with blanks at its ends; write 'ship'"),
        ({'classes': 'data/classes.txt'}, 'there is no such file'),
        ({'classes': ['ship', 'plane', 'ship']}, "names 'ship' more than once"),
        ({'CLASSES': ('ship',)}, "has 'CLASSES', which nothing reads"),
        ({'class_names': ('ship',)}, "has 'class_names', which nothing reads"),
        ({'classes': ('ship', 'plane'), 'palette': [(1, 2, 3)]}, 'palette has 1 colours for 2 classes'),
        ({'classes': ('ship',), 'palette': [255, 0, 255]}, 'palette holds 255'),
    ],
)
def test_classes_that_cannot_be(metainfo, words):
    for cls in ('DOTADataset', 'DOTAv15Dataset', 'HRSCDataset', 'DIORDataset', 'SyntheticAerialDataset'):
        with pytest.raises(ValueError, match='metainfo') as error:
            DATASETS.build(dict(type=f'mmrotate_plugin.{cls}', metainfo=metainfo))
        assert words in str(error.value) and '\n' not in str(error.value)
    wrapped = dict(type='RepeatDataset', dataset=dict(type='CocoDataset', metainfo=metainfo))
    (fault,) = find_class_faults(dict(val_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[wrapped]))))
    assert fault.startswith('val_dataloader.dataset.datasets[0].dataset.metainfo') and words in fault


def test_classes_that_can_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'names.txt').write_text('plane\r\nship\r\n')
    long = {'classes': ['ship'], 'palette': [(1, 2, 3), (4, 5, 6)]}
    for metainfo in (None, {}, {'classes': ['ship']}, {'classes': ('ship',), 'palette': 'random'}, long):
        assert metainfo_fault(metainfo) is None
    drawn = SyntheticAerialDataset(length=1, size=64, metainfo={'classes': 'names.txt'})
    assert drawn.metainfo['classes'] == ['plane', 'ship']
    (tmp_path / 'names.txt').write_text('ship\nship\n')
    with pytest.raises(ValueError, match="names 'ship' more than once"):
        SyntheticAerialDataset(length=1, size=64, metainfo={'classes': 'names.txt'})


def test_classes_of_a_part_keep_their_colours_and_new_ones_get_some(read):
    palette = read(['ship', 'a', 'b'], classes=('ship', 'a', 'b')).metainfo['palette']
    assert palette[0] == DOTADataset.METAINFO['palette'][6]
    assert len(set(palette)) == 3 and all(0 <= value <= 255 for colour in palette for value in colour)


@pytest.mark.parametrize('key', ['classes', 'CLASSES'])
def test_a_config_in_the_manner_of_mmdet_2(key, tmp_path, monkeypatch):
    monkeypatch.setattr('mmrotate_plugin.apis.config.register_hosts', lambda: None)  # takes seconds
    (tmp_path / 'c.py').write_text(
        f"model = dict(type='X')\ntrain_dataloader = dict(dataset=dict(type='DOTADataset', {key}=('ship')))\n"
    )
    with pytest.raises(UsageError, match=rf'train_dataloader\.dataset\.{key}: .*write metainfo=dict\(classes='):
        load_config(str(tmp_path / 'c.py'))


@pytest.mark.parametrize(
    'name, meant',
    [('Ship', 'ship'), ('SHIPS', 'ship'), ('large vehicle', 'large-vehicle'), ('Large_Vehicle', 'large-vehicle'),
     ('largevehicles', 'large-vehicle'), ('"ship"', 'ship'), ('zeppelin', None), ('', None), ('3', None)],
)  # fmt: skip
def test_other_spellings(name, meant):
    assert did_you_mean(name, ('plane', 'ship', 'large-vehicle', 'small-vehicle')) == meant


def test_names_that_are_close():
    names = ('helicopter', 'storage-tank', 'large-vehicle', 'small-vehicle')
    assert (
        did_you_mean('hellicopter', names) is None and did_you_mean('hellicopter', names, loose=names) == 'helicopter'
    )
    assert did_you_mean('tank', names, loose=names) == 'storage-tank'
    assert did_you_mean('vehicle', names, loose=names) is None  # either
    assert did_you_mean('large-vehicle', (), loose=('small-vehicle',)) is None


def test_another_spelling_is_counted_once_for_the_data_set(read, said):
    dataset = read(['ship', 'plane', 'ship'], ['ship'], classes=('plane', 'Ship', 'car'))
    assert [len(info['instances']) for info in dataset] == [1, 0]
    ((level, text),) = said
    assert level == logging.WARNING
    assert "3 of 4 objects are left out, because the config does not have their class: 'ship' (3)" in text
    assert "without any object: 'Ship' (did you mean 'ship'?), 'car'" in text


def test_a_slip_in_the_label_files(read, said):
    read(['ship'] * 5 + ['Ship', 'vessel'], classes=('ship',))
    ((level, text),) = said
    assert level == logging.WARNING and "'Ship' (1, did you mean 'ship'?), 'vessel' (1)" in text
    with pytest.raises(ValueError, match=r"0\.txt:6: class 'Ship' is unknown; did you mean 'ship'\?"):
        read(classes=('ship',), strict=True)


def test_a_part_of_the_classes_is_no_alarm_but_counted(read, said):
    read(['ship', 'harbor', 'harbor'], classes=('ship',))
    assert said == [(logging.INFO, said[0][1])]
    assert "2 of 3 objects are left out, because the config does not have their class: 'harbor' (2)" in said[0][1]
    said.clear()
    read(['ship'], classes=('ship', 'own'))
    assert said[0][0] == logging.WARNING and "classes of the config without any object: 'own'" in said[0][1]
    said.clear()
    read(['ship'], classes=('ship', 'own'), test_mode=True)  # a rare class may be missing in a split
    assert said[0][0] == logging.INFO
    said.clear()
    read(['ship', 'plane'], classes=('ship', 'plane'))
    assert not said


def test_no_class_fits(read, said):
    with pytest.raises(ValueError, match=r"'ship' \(2\); .*'boat'; no object is left to learn, nothing was trained"):
        read(['ship', 'ship'], classes=('boat',))
    read(classes=('boat',), test_mode=True)
    assert said[-1][0] == logging.WARNING
    with pytest.raises(ValueError, match=r"'3' \(1, a number: the label files must name classes\)"):
        read(['3'], ['0'], classes=('boat',))


def test_nothing_to_learn(read, said):
    dataset = read([], [])
    assert said[0][0] == logging.WARNING and 'there is no object in any label file' in said[0][1]
    assert not has_objects(dataset) and has_objects(read(['ship'], []))
    bare = SyntheticAerialDataset(length=2, size=64, num_objects=0)
    assert not has_objects(bare) and has_objects(object())


def test_readers_of_the_host_are_answered_with_ours():
    wrapped = dict(type='RepeatDataset', dataset=dict(type='mmrotate.DOTADataset'))
    assert "type='mmrotate_plugin.DOTADataset' names the file and the line" in reader_hint(wrapped)
    assert reader_hint(dict(type='mmrotate_plugin.DOTADataset')) == reader_hint(None) == ''


def test_many_files_are_summarised(read, said):
    read(*[['ship', 'tank x 3', 'boat']] * 30)
    warnings = [text for level, text in said if level == logging.WARNING]
    assert len(warnings) == 22 and 'left out 30 of 90 objects in 30 files' in warnings[-2]
    assert "'boat' (30)" in warnings[-1]


def test_a_name_with_blanks(read, said):
    dataset = read(['large vehicle', 'ship'], classes=('large vehicle', 'ship'))
    assert dataset.get_cat_ids(0) == [0, 1] and not said
    assert read(['large vehicle', 'ship'], classes=('large-vehicle', 'ship')).get_cat_ids(0) == [1]
    assert "'large-vehicle' (did you mean 'large vehicle'?)" in said[0][1]


def test_scenes_suggest_their_class():
    with pytest.raises(ValueError, match=r"\['Ship'\] \(did you mean 'ship'\?\) are not in the scenes"):
        SyntheticAerialDataset(length=1, metainfo={'classes': ('Ship',)})
