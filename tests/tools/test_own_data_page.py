"""docs/own-data.md, followed from its first line to its pictures."""

from pathlib import Path

import pytest
from test_docs import find_commands
from test_docs_site import DOCS, PYTHON

FEWER = {'24': '4', '8': '2', 'work_dirs/mine/epoch_8.pth': 'work_dirs/mine/epoch_1.pth'}
SHORTER = ['train_cfg.max_epochs=1', 'param_scheduler.1.T_max=1', 'default_hooks.checkpoint.interval=1']
SHORTER += ['train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']


@pytest.mark.slow
@pytest.mark.usefixtures('fresh_visualizers')
def test_the_page_leads_from_no_data_to_pictures(tool, tmp_path, monkeypatch, capsys):
    pytest.importorskip('mmrotate')
    text = (DOCS / 'own-data.md').read_text(encoding='utf-8')
    config, *_ = PYTHON.findall(text)  # further blocks are parts of a config
    monkeypatch.chdir(tmp_path)
    Path('my_config.py').write_text(config)
    commands = [c.words for c in find_commands('own-data.md', text) if c.words[0].endswith('.py')]
    names = [Path(words[0]).stem for words in commands]
    assert names == ['make_synthetic', 'train', 'test', 'image_demo']
    for name, (_, *words) in zip(names, commands, strict=True):
        words = [FEWER.get(word, word) for word in words] + (['--cfg-options', *SHORTER] if name == 'train' else [])
        assert tool(name)(words) == 0, capsys.readouterr().err
    assert len(list(Path('work_dirs/mine/drawn').glob('*.png'))) == 2
    assert list(Path('work_dirs/mine/shown').glob('*.png'))
