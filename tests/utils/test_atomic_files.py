import os
from multiprocessing.pool import ThreadPool

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


def test_permissions_follow_the_umask_of_the_process(tmp_path):
    before = os.umask(0o027)
    try:
        assert write_whole(tmp_path / 'b.json', '').stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_a_reader_never_sees_a_part(tmp_path):
    """Threads that write the same file do not meet: each has a temporary file of its own."""
    path, contents = tmp_path / 'b.json', [letter * 100_000 for letter in 'abcd']
    write_whole(path, contents[0])
    with ThreadPool(4) as pool:
        done = pool.map_async(lambda content: [write_whole(path, content) for _ in range(25)], contents)
        while not done.ready():
            assert path.read_text() in contents
        done.get()
    assert [p.name for p in tmp_path.iterdir()] == ['b.json']
