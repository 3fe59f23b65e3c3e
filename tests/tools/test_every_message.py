"""Every message of docs/troubleshooting.md, in every tool: one line, status 2, never a traceback.

A message of the page is one of these, and `test_every_message_is_tried` fails for one that is none:

- it has a trigger in `TRIGGERS`, and is tried here in all tools that take what is wrong: add one in a line;
- it is in `NO_MISTAKES`: set-up, a warning, a word of another program;
- another test quotes it, a part of it, or what `IN_OTHER_WORDS` says.
"""

import re
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmrotate')
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs/troubleshooting.md'

# how a tool is called; {cfg}, {ckpt} and {image} are good files, or what the trigger says
CHECKPOINT_TOOLS = {
    'train': '{cfg} --work-dir {out}/w --cfg-options load_from={ckpt}',
    'test': '{cfg} {ckpt} --work-dir {out}/w --cfg-options',
    'image_demo': '{image} {cfg} {ckpt} --out {out}/o.png --device cpu --cfg-options',
    'calibrate_uncertainty': '{cfg} {ckpt} --noise-std 8 --out {out}/o.pth --device cpu --cfg-options',
    'check_equivariance': '{cfg} {ckpt} --out {out}/o --size 65 --device cpu --cfg-options',
    'export': '{cfg} {ckpt} --out {out}/e --formats config --cfg-options',
    'evaluate_uncertainty': '{cfg} {ckpt} --out {out}/u --device cpu --cfg-options val_dataloader=some',
}
CONFIG_TOOLS = {**CHECKPOINT_TOOLS, 'get_flops': '{cfg} --size 65 --cfg-options'}
NEEDS_DATA = ('evaluate_uncertainty', 'calibrate_uncertainty')
WITHOUT_DATA = {name: line for name, line in CONFIG_TOOLS.items() if name not in NEEDS_DATA}
RUNS_ODD_SIZES = {name: CONFIG_TOOLS[name] for name in ('train', 'check_equivariance', 'get_flops')}
WITHOUT_OPTIONS = {
    'show_basis': '--config {cfg} --checkpoint {ckpt} --out {out}/b',
    'convert_weights': '{ckpt} {out}/c.pth --to mmrotate',
}
RESUME = {'train': '{cfg} --work-dir {out}/w --resume {ckpt} --cfg-options'}
TRAIN = {'train': CHECKPOINT_TOOLS['train']}
PRETRAINED = 'load_from=None model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint={%s}'

# message: (tools, what is wrong: options of the config, or a file in place of a good one)
TRIGGERS = {
    'does not hold whole regular fields of group': (CONFIG_TOOLS, 'model.backbone.base_channels=10'),
    'is no fiber group: use': (CONFIG_TOOLS, 'model.backbone.group=E8'),
    ': give both the same group': (CONFIG_TOOLS, 'model.neck.type=mmrotate_plugin.ReFPN model.neck.group=C8'),
    'is not equivariant: use': (CONFIG_TOOLS, 'model.backbone.conv_cfg.type=Conv2d'),
    'has no equivariant version here: use one of': (CONFIG_TOOLS, 'model.backbone.norm_cfg.type=LN'),
    'needs maps of which each is twice as large as the next': (RUNS_ODD_SIZES, 'cfg=doubling'),
    'which is for CUDA only': (WITHOUT_DATA, 'cfg=carafe'),
    'holds more than weights: its pickle names': ({**CHECKPOINT_TOOLS, **WITHOUT_OPTIONS, **RESUME}, 'ckpt=evil'),
    'is not a whole checkpoint': ({**CHECKPOINT_TOOLS, **WITHOUT_OPTIONS, **RESUME}, 'ckpt=cut'),
    'is damaged: the checksum of its record': ({**CHECKPOINT_TOOLS, **WITHOUT_OPTIONS, **RESUME}, 'ckpt=damaged'),
    "does not fit the config's model": ({k: v for k, v in CHECKPOINT_TOOLS.items() if k != 'train'}, 'ckpt=other'),
    'the checkpoint is of a': (CHECKPOINT_TOOLS, 'ckpt=other'),
    'the checkpoint holds no weights of': (TRAIN, PRETRAINED % 'headless'),
}
NECKS = {
    'carafe': "type='mmdet.FPN_CARAFE', out_channels=8, num_outs=2",
    'doubling': "type='mmdet.CSPNeXtPAFPN', out_channels=8, num_csp_blocks=1, norm_cfg=dict(type='BN')",
}
NO_MISTAKES = {
    'mmrotate_plugin needs', 'set-up:', 'is not installed', "which returns e2cnn's", 'is it misspelt?',
    'could not be written', 'undefined symbol: _ZN', "module 'collections' has no attribute 'Sequence'",
    'Weights only load failed', 'cannot be imported: pip install',
}  # fmt: skip


# message: how the test that tries it quotes it
IN_OTHER_WORDS = {
    'takes a plain tensor, got an e2cnn GeometricTensor': 'GeometricTensor',
    "object of type 'GeometricTensor' has no len()": "cannot take e2cnn's GeometricTensor",
    'riroi_align_rotated_forward_impl: implementation for device cpu not found': 'which is for CUDA only',
    'does not support to load mmrotate_plugin config': 'does not support to load mmrotate_plugin',
    'whose coefficients have the shape': 'coefficients',
    'has no images that can be used': '{root}/empty/',
    'files outside of the data folder': 'test_annotations_cannot_name_files_outside',
    'without a GPU: only --launcher pytorch': '--launcher slurm without a GPU',
    'must be even/4': 'quarter turns',
    'has no moment rule: a Gaussian cannot pass it': 'has no moment rule',
    'needs dropout layers, and the detector has none': 'needs dropout layers',
    'has no counterpart in mmdet': 'has no counterpart',
}


def messages() -> list[str]:
    """Headings of the page: the texts that users search for."""
    return re.findall(r'^### `(.+)`$', PAGE.read_text(encoding='utf-8'), re.MULTILINE)


class Touches:
    def __reduce__(self):
        return eval, ("open('/nonexistent/x', 'w')",)


@pytest.fixture(scope='module')
def files(small_config, scenes, tmp_path_factory):
    """Good files by the names in the command lines, and bad checkpoints."""
    from mmrotate_plugin.engine import cli
    from mmrotate_plugin.engine.inference import build_model

    root = tmp_path_factory.mktemp('messages')

    def save(name, options=()):
        state = build_model(cli.load_config(str(small_config), list(options))).state_dict()
        torch.save({'state_dict': state, 'meta': {}}, root / name)
        return state

    state = save('good.pth')
    whole = (root / 'good.pth').read_bytes()
    (root / 'cut.pth').write_bytes(whole[: len(whole) // 2])
    at = whole.index(state['backbone.conv1.weight'].numpy().tobytes()[:16])
    (root / 'damaged.pth').write_bytes(whole[:at] + bytes(16) + whole[at + 16 :])
    torch.save({'state_dict': state, 'meta': {'x': Touches()}}, root / 'evil.pth')
    torch.save({k: v for k, v in state.items() if 'backbone' not in k}, root / 'headless.pth')
    save('other.pth', ['model.backbone.base_channels=16', 'model.neck.in_channels=[16,32]'])
    bad = {}
    for name, neck in NECKS.items():
        bad[name] = str(root / f'{name}.py')
        text = f"_base_ = '{small_config}'\nmodel = dict(neck=dict(_delete_=True, in_channels=[8, 16], {neck}))\n"
        Path(bad[name]).write_text(text)
        bad[f'{name}_ckpt'] = str(root / f'{name}.pth')
        torch.save(build_model(cli.load_config(bad[name])).state_dict(), bad[f'{name}_ckpt'])
    places = {name: str(root / f'{name}.pth') for name in ('cut', 'damaged', 'evil', 'headless', 'other')}
    places |= {**bad, 'ckpt': str(root / 'good.pth'), 'cfg': str(small_config)}
    return {**places, 'image': str(scenes / 'images/scene0.png')}


CASES = [(message, name) for message, (tools, _) in TRIGGERS.items() for name in tools]


@pytest.mark.parametrize(('message', 'name'), CASES, ids=[f'{name}-{message[:24]}' for message, name in CASES])
def test_a_message_is_one_line_in_every_tool(message, name, files, tool, tmp_path, capsys):
    tools, wrong = TRIGGERS[message]
    line, places = tools[name], {**files, 'out': tmp_path}
    if wrong.startswith(('ckpt=', 'cfg=')):
        key, _, value = wrong.partition('=')
        places[key] = files[value]
        if key == 'cfg':
            places['ckpt'] = files[f'{value}_ckpt']
    else:
        line += f' {wrong}'
    words = [word.format(**places) for word in line.split()]
    if words[-1] == '--cfg-options':
        del words[-1]
    capsys.readouterr()
    status = tool(name)(words)
    printed = capsys.readouterr().err
    error = [text for text in printed.splitlines() if text.startswith('error: ')]
    assert status == 2 and len(error) == 1 and message in error[0], printed[-2000:]
    assert 'Traceback' not in printed


def test_every_message_is_tried():
    others = ''.join(
        file.read_text(encoding='utf-8') for file in (ROOT / 'tests').rglob('test_*.py') if file != Path(__file__)
    )
    found = messages()
    assert len(found) > 30
    known = {*TRIGGERS, *NO_MISTAKES}
    untried = [text for text in found if text not in known and not quoted(IN_OTHER_WORDS.get(text, text), others)]
    assert untried == [], 'give each a trigger in TRIGGERS'
    assert known.union(IN_OTHER_WORDS) - set(found) == set(), 'the page has them no longer'
    assert not quoted('of a message that nobody has thought of yet', others)


def quoted(message: str, tests: str) -> bool:
    """Whether tests have a good part of it; they write quotes and dots with backslashes."""
    plain = tests.replace('\\', '')
    words = message.split()
    parts = [' '.join(words[i : i + 4]) for i in range(max(len(words) - 3, 1))]
    return any(part in plain for part in parts)


@pytest.mark.parametrize('name', CONFIG_TOOLS)
@pytest.mark.parametrize('option', ['foo', '=1', 'model.backbone.depth.x=1'])
def test_options_that_cannot_be_read(name, option, files, tool, tmp_path, capsys):
    words = [word.format(**files, out=tmp_path) for word in CONFIG_TOOLS[name].split()]
    capsys.readouterr()
    assert tool(name)([*words, option]) == 2
    assert '--cfg-options' in capsys.readouterr().err.splitlines()[-1]
