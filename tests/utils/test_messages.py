"""Suggest a file for a misspelt path."""

from mmrotate_plugin.utils.messages import similar_path


def test_a_misspelt_file_is_found_but_not_in_a_hidden_folder(tmp_path):
    (tmp_path / 'configs').mkdir()
    (tmp_path / '.venv').mkdir()
    for name in ('configs/detector.py', '.venv/detecton.py'):
        (tmp_path / name).touch()
    assert similar_path(tmp_path / 'detecto.py') == f'; did you mean {tmp_path / "configs/detector.py"}?'
    assert similar_path(tmp_path / 'nothing_like_it.py') == ''
