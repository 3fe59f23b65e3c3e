import os

import pytest

from mmrotate_plugin.utils.atomic_files import write_whole


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / 'a/b.json'
    write_whole(path, 'old')
    write_whole(path, b'new')
    assert path.read_bytes() == b'new'
    assert [p.name for p in path.parent.iterdir()] == ['b.json']
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_failure_keeps_the_old_file(tmp_path, monkeypatch):
    path = write_whole(tmp_path / 'b.json', 'old')

    def fail(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='No space left'):
        write_whole(path, 'new')
    assert path.read_text() == 'old'
    assert [p.name for p in tmp_path.iterdir()] == ['b.json']
