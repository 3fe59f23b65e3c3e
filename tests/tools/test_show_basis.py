"""tools/show_basis.py as users call it: what it prints, which pictures it writes, and every kind of wrong input."""

import re
from pathlib import Path

import cv2
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SYNTHETIC = ROOT / 'configs/synthetic/rotated-fcos_re18_fpn_synthetic.py'
PAGE = (ROOT / 'docs/equivariant-layers.md').read_text(encoding='utf-8')


@pytest.fixture
def show(tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tool('show_basis')


def test_the_stem_of_the_example(show, tmp_path, capsys):
    assert show(['--trivial-input', '--out', 'pictures']) == 0
    text = capsys.readouterr().out
    assert '3 inputs x 8 fields x 40 basis elements = 960 coefficients -> 3 x 64 x 7 x 7 = 9408 filter entries' in text
    assert 'C8, order 8' in text and '3 trivial -> 8 regular' in text and '9.8 filter entries per coefficient' in text
    names = ['c8_trivial_7x7_elements.png', 'c8_trivial_7x7_filter.png']
    assert sorted(p.name for p in (tmp_path / 'pictures').iterdir()) == names
    for name in names:
        file = tmp_path / 'pictures' / name
        assert cv2.imread(str(file)).shape[1] == 1500
        assert file.stat().st_size < 200_000
        assert f'pictures/{name}' in text


def test_every_option_has_an_effect(show, tmp_path, capsys):
    base = ['--group', 'D4', '--in-channels', '16', '--out-channels', '8', '--kernel-size', '3']
    changes = [['--trivial-input'], ['--dilation', '2'], ['--seed', '1'], ['--field-pair', '1', '0']]
    changes += [['--group', 'C8'], ['--in-channels', '24'], ['--out-channels', '16'], ['--kernel-size', '1']]
    seen = []
    for i, change in enumerate([[], *changes]):
        assert show([*base, *change, '--out', f'{i}.png']) == 0
        seen.append(capsys.readouterr().out.replace(f'{i}.png', '').encode() + (tmp_path / f'{i}.png').read_bytes())
    assert len(set(seen)) == len(seen)
    assert show([*base, '--out', 'again.png']) == 0  # the same seed, the same picture
    assert (tmp_path / 'again.png').read_bytes() == (tmp_path / '0.png').read_bytes()
    assert {p.suffix for p in tmp_path.iterdir()} == {'.png'}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> Path:
    """A checkpoint whose stem has one coefficient other than zero."""
    pytest.importorskip('mmdet')
    from mmengine.registry import init_default_scope

    from mmrotate_plugin.apis.config import load_config

    cfg = load_config(str(SYNTHETIC))
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    state = MODELS.build(cfg.model).state_dict()
    state['backbone.conv1.weight'].zero_()[0, 0, 0] = 5
    path = tmp_path_factory.mktemp('weights') / 'stem.pth'
    torch.save({'state_dict': state}, path)
    return path


def test_layers_of_a_model_with_and_without_weights(show, checkpoint, tmp_path, capsys):
    assert show(['--config', str(SYNTHETIC), '--out', 'initial']) == 0
    assert '3 inputs x 4 fields x 40 basis elements = 480 coefficients' in capsys.readouterr().out
    assert show(['--config', str(SYNTHETIC), '--checkpoint', str(checkpoint), '--out', 'trained']) == 0
    for part, same in (('elements', True), ('filter', False)):
        files = [tmp_path / folder / f'backbone.conv1_{part}.png' for folder in ('initial', 'trained')]
        assert (files[0].read_bytes() == files[1].read_bytes()) is same
    assert show(['--config', str(SYNTHETIC), '--layer', 'backbone.layer1.0.conv1', '--out', 'one.png']) == 0
    assert '4 regular -> 4 regular' in capsys.readouterr().out


WRONG = [
    ('--group E8', ["group='E8' is no fiber group", "'C4', 'C8'"]),
    ('--group C8 --in-channels 3', ['in_channels=3 does not hold whole regular fields', '8 would do']),
    ('--kernel-size 4', ['kernel_size=4 has no centre pixel']),
    ('--dilation 0', ['dilation=0 must be']),
    ('--field-pair 8 0', ['field pair 8 0 (input, output)', '0 to 7']),
    ('--out {root}/file/x', ["--out '{root}/file/x' cannot be written"]),
    ('--out {root}/file/x.png', ["--out '{root}/file' cannot be written"]),
    ('--out {root}/x.jpg', ["--out '{root}/x.jpg' must end with .png, or be a folder"]),
    ('--config {root}/none.py', ["config '{root}/none.py' does not exist"]),
    ('--config {cfg} --checkpoint {root}/none.pth', ["--checkpoint '{root}/none.pth' does not exist"]),
    ('--config {cfg} --layer backbone.conv9', ["'backbone.conv9' does not exist; these would work: backbone.conv1, "]),
    ('--config {cfg} --layer backbone.layer1.0', ['is a BasicBlock', 'work: backbone.layer1.0.conv1, backbone']),
    ('--config {cfg} --layer bbox_head.conv_cls', ['is a Conv2d, not a steerable convolution', 'in all)']),
    ('--config {plain}', ["'backbone.conv1' is a Conv2d", 'ResNet-18 has none', 'mmrotate_plugin.ReResNet']),
]  # fmt: skip


@pytest.mark.parametrize(('line', 'texts'), WRONG, ids=[w[0] for w in WRONG])
def test_wrong_input_is_one_clear_line(line, texts, show, tmp_path, capsys):
    if '{cfg}' in line or '{plain}' in line:
        pytest.importorskip('mmrotate')
    (tmp_path / 'file').write_text('in the way')
    plain = ROOT / 'configs/synthetic/rotated-fcos_r18_fpn_synthetic.py'
    names = {'root': tmp_path, 'cfg': SYNTHETIC, 'plain': plain}
    status = show([word.format(**names) for word in line.split()])
    lines = capsys.readouterr().err.strip().split('\n')
    assert status == 2 and len(lines) == 1 and lines[0].startswith('error: '), lines
    for text in texts:
        assert text.format(**names) in lines[0]
    assert [p.name for p in tmp_path.iterdir()] == ['file']


@pytest.mark.parametrize(('line', 'text'), [
    ('--layer backbone.conv1', '--layer needs a --config'),
    ('--checkpoint x.pth', '--checkpoint needs a --config'),
    ('--config x.py --trivial-input', '--trivial-input has no effect on a layer of a --config'),
    ('--config x.py --kernel-size 3', '--kernel-size has no effect'),
])  # fmt: skip
def test_options_that_would_be_ignored_are_refused(line, text, show, capsys):
    with pytest.raises(SystemExit) as stop:
        show(line.split())
    assert stop.value.code == 2
    assert text in capsys.readouterr().err


def rows(heading: str) -> dict[str, list[int]]:
    """The table under a heading of the page: first cell -> the numbers in the others."""
    table = PAGE.split(f'## {heading}\n')[1].split('\n## ')[0]
    cells = (line.strip('|').split('|') for line in table.splitlines() if line.startswith('| '))
    numbers = {
        name.strip(): [int(n.replace(',', '')) for n in rest if re.fullmatch(r' [\d,]+ ', n)] for name, *rest in cells
    }
    return {name: found for name, found in numbers.items() if found}


def test_numbers_of_coefficients_on_the_page():
    from mmrotate_plugin.equivariant.basis import steerable_basis

    table = rows('How many coefficients')
    assert {'image channel, any group', 'C4', 'C8', 'C16', 'D4', 'D8'} <= set(table)
    assert table.pop('image channel, any group') == [
        len(steerable_basis('C8', k, trivial_input=True).samples) for k in (1, 3, 5, 7)
    ]
    for group in ('C4', 'C8', 'C16', 'D4', 'D8'):
        sizes = (1, 3, 5, 7) if group in ('C4', 'C8', 'D4') else (1, 3, 5)  # the largest take seconds
        assert table[group][: len(sizes)] == [len(steerable_basis(group, k).samples) for k in sizes], group


def test_numbers_of_parameters_on_the_page():
    from mmrotate_plugin.models.backbones import ReResNet, ResNet

    table = rows('What a network saves')
    assert len(table) == 6
    for name, (parameters,) in table.items():
        net = ResNet(50) if name == 'plain ResNet-50' else ReResNet(50, group=name)
        assert sum(p.numel() for p in net.parameters()) == parameters, name
