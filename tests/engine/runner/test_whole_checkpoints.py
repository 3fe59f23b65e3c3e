"""Damaged checkpoints are recognised, and the last one of a training is found."""

import os
from pathlib import Path

import pytest
import torch

from mmrotate_plugin.engine.runner.work_dir_checkpoints import (
    DiskFullError,
    damage,
    explain_full_disk,
    training_checkpoints,
)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save({'state_dict': {'weight': torch.randn(100, 100)}, 'meta': {'epoch': 1}}, path)
    return path


def test_a_whole_file_is_not_damaged(saved, tmp_path):
    assert damage(saved) is None
    old = tmp_path / 'old.pth'
    torch.save({'a': torch.zeros(3)}, old, _use_new_zipfile_serialization=False)
    assert damage(old) is None


@pytest.mark.parametrize('length', [0, 1, 100, 20_000, -1])
def test_a_file_that_was_cut_off(saved, length):
    data = saved.read_bytes()
    saved.write_bytes(data[:length])
    assert damage(saved) is not None


def test_one_wrong_bit_amid_the_numbers(saved):
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 1
    saved.write_bytes(data)
    assert torch.load(saved, weights_only=True)['state_dict']['weight'].shape == (100, 100)  # torch does not notice
    assert 'the checksum of its record' in damage(saved)


def test_what_torch_did_not_write(tmp_path):
    path = tmp_path / 'text.pth'
    path.write_text('a text')
    assert '6 bytes that torch.save did not write' in damage(path)


def touch(folder: Path, name: str, age: int) -> Path:
    path = folder / name
    path.touch()
    os.utime(path, ns=(10**18 - age * 10**9,) * 2)
    return path


def names(folder):
    return [path.name for path in training_checkpoints(folder)]


def test_last_first_by_number(tmp_path):
    for i in (2, 9, 10):
        touch(tmp_path, f'epoch_{i}.pth', 5)  # copied: all of one age
    touch(tmp_path, 'best_mAP_epoch_10.pth', 5)
    touch(tmp_path, 'notes.pth', 5)
    assert names(tmp_path) == ['epoch_10.pth', 'epoch_9.pth', 'epoch_2.pth']
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_10.pth'))
    assert names(tmp_path) == ['epoch_10.pth', 'epoch_9.pth', 'epoch_2.pth']
    assert names(tmp_path / 'nowhere') == []


def test_another_training_in_the_folder_is_not_continued(tmp_path):
    for i in (11, 12):
        touch(tmp_path, f'epoch_{i}.pth', 100)
    for i in (1, 2):
        touch(tmp_path, f'epoch_{i}.pth', 50 - i)
    (touch(tmp_path, 'last_checkpoint', 47)).write_text(str(tmp_path / 'epoch_2.pth'))
    touch(tmp_path, 'last_checkpoint', 47)
    assert names(tmp_path) == ['epoch_2.pth', 'epoch_1.pth']


def test_killed_between_the_checkpoint_and_the_note_of_it(tmp_path):
    touch(tmp_path, 'epoch_1.pth', 50)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    touch(tmp_path, 'last_checkpoint', 49)
    touch(tmp_path, 'epoch_2.pth', 10)
    assert names(tmp_path) == ['epoch_2.pth', 'epoch_1.pth']


@pytest.mark.parametrize('text', ['', '/somewhere/else/epoch_2.pth'])
def test_an_empty_note_and_a_moved_folder(tmp_path, text):
    touch(tmp_path, 'epoch_1.pth', 50)
    touch(tmp_path, 'epoch_2.pth', 40)
    (tmp_path / 'last_checkpoint').write_text(text)
    assert names(tmp_path) == ['epoch_2.pth', 'epoch_1.pth']


def test_full_disk_is_told_from_other_errors():
    with pytest.raises(DiskFullError, match="a file '/dev/full' could|a file could"), explain_full_disk():
        Path('/dev/full').write_text('x' * 100_000)
    with pytest.raises(FileNotFoundError), explain_full_disk():
        Path('/nowhere/at/all').read_text()
