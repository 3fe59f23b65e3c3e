"""The classes of a checkpoint against those of the data."""

import pytest

from mmrotate_plugin.engine.checks import before_run
from mmrotate_plugin.engine.checks.checkpoint_classes import (
    checkpoint_classes,
    configured_classes,
    difference,
    names_and_palette,
)
from mmrotate_plugin.utils import messages
from mmrotate_plugin.utils.errors import UsageError

TRAINED = ('plane', 'ship', 'storage-tank')
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def checkpoint(names=TRAINED, **meta):
    return {'state_dict': {}, 'meta': {'dataset_meta': {'classes': names, **meta}}}


def config(*names, palette=None, **others):
    meta = {'classes': names} | ({'palette': palette} if palette else {})
    return {'test_dataloader': {'dataset': {'type': 'RepeatDataset', 'dataset': {'metainfo': meta}}}, **others}


@pytest.mark.parametrize(
    'meta, names',
    [({'dataset_meta': {'classes': TRAINED}}, TRAINED), ({'dataset_meta': {'CLASSES': list(TRAINED)}}, TRAINED),
     ({'CLASSES': TRAINED}, TRAINED), ({'CLASSES': None}, None), ({'dataset_meta': {}}, None), ({}, None),
     ({'dataset_meta': None}, None), ({'dataset_meta': {'classes': 'ship'}}, None)],
)  # fmt: skip
def test_names_of_checkpoints_of_each_age(meta, names):
    assert checkpoint_classes({'meta': meta}) == names
    assert checkpoint_classes({}) is None


@pytest.mark.parametrize(
    'given, kind',
    [(TRAINED, None), (('Plane', 'ship', 'Storage tank'), None), (None, None),
     (('ship', 'plane', 'storage-tank'), 'order'), (('plane', 'ship', 'harbor'), 'names'),
     (('plane', 'ship'), 'number'), ((*TRAINED, 'harbor'), 'number')],
)  # fmt: skip
def test_kinds_of_differences(given, kind):
    found = difference(TRAINED, given)
    assert (found and found.kind) == kind
    assert difference(TRAINED, given, renames=True) is None
    assert difference(None, given) is None


def test_the_first_difference_is_named():
    text = difference(TRAINED, ('plane', 'storage-tank', 'ship')).text
    assert "number 1 is 'ship' in the checkpoint and 'storage-tank' in the data set" in text
    assert 'the checkpoint has (plane, ship, storage-tank)' in text


def test_renamed_classes_have_a_way_out_which_works():
    given = ('plane', 'vessel', 'storage-tank')
    found = difference(TRAINED, given)
    (option,) = [word for word in found.cure.replace(',', ' ').split() if word.startswith('class_renames.')]
    assert option == 'class_renames.ship=vessel'
    assert difference(TRAINED, given, {'ship': 'vessel'}) is None
    assert difference(TRAINED, given, {'plane': 'vessel'}).kind == 'names'  # the wrong one


def test_refused_or_told(monkeypatch):
    said = []
    monkeypatch.setattr(messages, 'print_log', lambda text, **_: said.append(text))
    swapped = ('ship', 'plane', 'storage-tank')
    with pytest.raises(UsageError, match=r"^checkpoint 'x.pth': .*another order.* class_renames=True"):
        before_run.check_classes({}, checkpoint(), 'x.pth', swapped)
    assert not said
    before_run.check_classes({}, checkpoint(), 'x.pth', swapped, result='times are the same')
    assert len(said) == 1 and said[0].endswith('; times are the same')
    before_run.check_classes({}, checkpoint(None), 'x.pth', swapped)
    before_run.check_classes({'class_renames': True}, checkpoint(), 'x.pth', swapped)
    before_run.check_classes({}, checkpoint(), 'x.pth', None)
    assert len(said) == 1
    for renames, text in ((['ship'], 'must be a dict'), ({'shop': 'vessel'}, "has no class 'shop'")):
        with pytest.raises(UsageError, match=text):
            before_run.check_classes({'class_renames': renames}, checkpoint(), 'x.pth', TRAINED)


def test_training_and_validation_data_have_the_same_classes():
    from types import SimpleNamespace

    def data(*names):
        return SimpleNamespace(metainfo={'classes': names})

    before_run.check_same_classes(data(*TRAINED), data(*TRAINED), 'val_dataloader')
    with pytest.raises(UsageError, match=r"number 0 is 'plane' in that of train_dataloader and 'ship' in that of val_"):
        before_run.check_same_classes(data(*TRAINED), data('ship', 'plane', 'storage-tank'), 'val_dataloader')


def test_colours_go_with_names():
    swapped = config('ship', 'plane', 'storage-tank', palette=[GREEN, RED, BLUE])
    assert configured_classes(swapped) == ('ship', 'plane', 'storage-tank')
    assert names_and_palette(swapped, checkpoint()) == (TRAINED, [RED, GREEN, BLUE])
    other = config('harbor', 'car', 'bridge', palette=[GREEN, RED, BLUE])
    assert names_and_palette(other, checkpoint()) == (TRAINED, None)
    assert names_and_palette(other, checkpoint(palette=[BLUE, RED, GREEN])) == (TRAINED, [BLUE, RED, GREEN])
    renamed = config('plane', 'vessel', 'storage-tank', palette=[RED, GREEN, BLUE], class_renames={'ship': 'vessel'})
    assert names_and_palette(renamed, checkpoint())[0] == ('plane', 'vessel', 'storage-tank')
    assert names_and_palette(swapped, {'meta': {}}) == (('ship', 'plane', 'storage-tank'), [GREEN, RED, BLUE])
    assert names_and_palette({}, {'meta': {}}) == ((), None)
