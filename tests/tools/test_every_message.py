"""Every message of docs/troubleshooting.md, in every tool: one line, status 2, never a traceback.

A message of the page is one of these, and `test_every_message_of_the_page_is_in_one_table` fails for one that is none:

- an error of a tool, in `TRIGGERS`: tried in all tools that take what is wrong;
- an error of a part that tools share, in `REFUSED`: tried through `run_command.run`, as the command of a tool is run;
- a warning, in `TOLD`: it is logged, and the status is 0;
- in `ELSEWHERE`: of the set-up, or another program's own words. The test that covers it is named.

That all tools read configs, checkpoints and data by the same functions, and end as these do, is tested at the end.
"""

import logging
import re
import sys
from importlib import import_module
from pathlib import Path

import message_commands as commands
import message_data as data
import message_runs as runs
import numpy as np
import pytest
import torch
from message_data import BOAT, IMAGE, SHIP
from mmengine.logging import MMLogger

from mmrotate_plugin import adf
from mmrotate_plugin.apis.config import load_config
from mmrotate_plugin.apis.run_command import run
from mmrotate_plugin.datasets import LabelMeDataset, RotatedCocoDataset
from mmrotate_plugin.equivariant import ennConv
from mmrotate_plugin.evaluation import DOTAMetric
from mmrotate_plugin.utils.errors import UsageError
from mmrotate_plugin_cli.main import TABLE

pytest.importorskip('mmrotate')
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs/troubleshooting.md'

# how a tool is called; {cfg}, {ckpt} and {image} are good files, or what the trigger says
CHECKPOINT_TOOLS = {
    'train': '{cfg} --work-dir {out}/w --cfg-options load_from={ckpt}',
    'test': '{cfg} {ckpt} --work-dir {out}/w --cfg-options',
    'image_demo': '{image} {cfg} {ckpt} --out {out}/o.png --device cpu --cfg-options',
    'calibrate_uncertainty': '{cfg} {ckpt} --noise-std 8 --out {out}/o.pth --device cpu --cfg-options',
    'check_equivariance': '{cfg} {ckpt} --out {out}/o --size 65 --no-detections --device cpu --cfg-options',
    'export': '{cfg} {ckpt} --out {out}/e --formats config --cfg-options',
    'evaluate_angles': '{cfg} {ckpt} --out {out}/a --angles 0 --device cpu --cfg-options',
    'evaluate_uncertainty': '{with_val} {ckpt} --out {out}/u --device cpu --cfg-options',
}
CONFIG_TOOLS = {**CHECKPOINT_TOOLS, 'get_flops': '{cfg} --size 65 --cfg-options'}
NEEDS_DATA = ('evaluate_uncertainty', 'calibrate_uncertainty')
WITHOUT_DATA = {name: line for name, line in CONFIG_TOOLS.items() if name not in NEEDS_DATA}
BUILDS = {name: CONFIG_TOOLS[name] for name in ('train', 'image_demo')}  # by a runner, and by itself
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
    ': give both the same group': (BUILDS, 'model.neck.type=mmrotate_plugin.ReFPN model.neck.group=C8'),
    'is not equivariant: use': (BUILDS, 'model.backbone.conv_cfg.type=Conv2d'),
    'has no equivariant version here: use one of': (BUILDS, 'model.backbone.norm_cfg.type=LN'),
    'needs maps of which each is twice as large as the next': (RUNS_ODD_SIZES, 'cfg=doubling'),
    'which is for CUDA only': (WITHOUT_DATA, 'cfg=carafe'),
    'holds more than weights: its pickle names': ({**CHECKPOINT_TOOLS, **WITHOUT_OPTIONS, **RESUME}, 'ckpt=evil'),
    'is not a whole checkpoint': ({**CHECKPOINT_TOOLS, **WITHOUT_OPTIONS, **RESUME}, 'ckpt=cut'),
    'is damaged: the checksum of its record': ({**CHECKPOINT_TOOLS, **WITHOUT_OPTIONS, **RESUME}, 'ckpt=damaged'),
    "does not fit the config's model": ({k: v for k, v in CHECKPOINT_TOOLS.items() if k != 'train'}, 'ckpt=other'),
    'the checkpoint is of a': (CHECKPOINT_TOOLS, 'ckpt=other'),
    'the checkpoint holds no weights of': (TRAIN, PRETRAINED % 'headless'),
    'there are no deformable convolutions here': (BUILDS, 'model.backbone.dcn.type=DCN'),
    'both say how to start': (TRAIN, 'model.backbone.pretrained=x model.backbone.init_cfg.type=Pretrained'),
    'a comma is missing': (CONFIG_TOOLS, 'train_dataloader.dataset.metainfo.classes=ship'),
    'which nothing reads: write metainfo=dict(classes=': (
        BUILDS,
        'train_dataloader.dataset.metainfo.CLASSES=[ship]',
    ),
    'takes 1 or 3 values of mean': (
        BUILDS,
        'model.backbone.in_channels=2 model.data_preprocessor.mean=[1,1] model.data_preprocessor.std=[1,1]',
    ),
    'the config does not say for which batch size': (TRAIN, 'auto_scale_lr=None --auto-scale-lr'),
    'without a GPU: only --launcher pytorch': (TRAIN, 'log_level=INFO --launcher slurm'),
    'Write num_classes=': (TRAIN, 'load_from=None model.bbox_head.num_classes=4'),
    'has no object; there is nothing to learn': (TRAIN, 'load_from=None train_dataloader.dataset.num_objects=[0,0]'),
    'the config cannot be run': (
        {name: CHECKPOINT_TOOLS[name] for name in ('train', 'image_demo')},
        'model.bbox_head.strides=[None,16]',
    ),
}


# message: what leads to it, given an empty folder
REFUSED = {
    'times as far as the images: are these of the size that was labelled': lambda folder: data.labels(
        folder, *(f'{x} 100 {x + 20} 100 {x + 20} 110 {x} 110 ship 0' for x in range(200, 208))
    ),
    'with x and y exchanged they would lie inside': lambda folder: data.labels(
        folder, *(f'5 {x} 15 {x} 15 {x + 9} 5 {x + 9} ship 0' for x in range(42, 50))
    ),
    'has no images that can be used': data.no_images,
    'the data set has no class of number': runs.labels_by_number,
    'files outside of the data folder': data.outside,
    'is not installed': runs.no_scope,
    'takes a plain tensor, got an e2cnn GeometricTensor': runs.geometric,
    'has no centre pixel to turn about': lambda _: ennConv(8, 8, 4),
    'cannot keep the size with stride=': lambda _: ennConv(8, 8, 3, stride=2, padding='same'),
    'is unknown: use a number of pixels': lambda _: ennConv(8, 8, 3, padding='wide'),
    'there is not enough memory': lambda _: torch.empty(2**60),
    'whose coefficients have the shape': runs.plain_weights,
    "the checkpoint's sampled kernels are not those of group": runs.sampled_kernels,
    'it was trained for the same classes in another order': runs.classes_of_checkpoint,
    'no object is left to learn': lambda folder: data.labels(folder, SHIP, classes=('plane',)),
    '; they look like': lambda folder: data.labels(folder, '0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2'),
    'which look like': data.json_labels,
    'this format has no list of classes': lambda folder: data.labelled_by(
        LabelMeDataset, folder, 'a.json', data.LABELME
    ),
    'nothing says what the angle is': lambda folder: data.labelled_by(RotatedCocoDataset, folder, 'a.json', data.FIVE),
    'its class number': lambda folder: data.yolo(folder, '15 .1 .1 .5 .1 .5 .2 .1 .2'),
    'to YAML; put its name in quotes': lambda folder: data.yolo(folder, '', names='[no, yes]'),
    'has a label file. That of': lambda folder: data.yolo(folder, '', label='labels/b.txt'),
    'mixes formats': lambda folder: data.convert(folder, {'a.txt': SHIP, 'a.json': data.LABELME}),
    'so the format cannot be recognised': lambda folder: data.convert(folder, {'a.txt': ''}),
    'label files have no image of their name': lambda folder: data.convert(folder, {'a.txt': SHIP}, 'b.png'),
    'give an empty or a new folder, or the same arguments to continue': lambda folder: data.convert(
        folder, {'a.txt': SHIP}, again=True
    ),
    'its corners are from 0 to 1': lambda folder: data.labels(folder, '.1 .1 .2 .1 .2 .2 .1 .2 ship 0'),
    'have one name': lambda folder: data.labels(folder, SHIP, images=('a.png', 'a.jpg'), img_suffix=('png', 'jpg')),
    'of the label files:': data.lone_image,
    'Give both the same metainfo.classes': runs.other_validation,
    'is an empty file': data.empty_image,
    'has samples of type': lambda folder: data.load(data.image_file(folder, IMAGE.astype(np.uint16) * 16)),
    'which is none of bit_depth=': lambda folder: data.load(
        data.image_file(folder, IMAGE.astype(np.uint16) * 256), bit_depth=12
    ),
    'takes the first alone': lambda folder: (data.tiff(folder, data.bands(4)), data.images_of(folder, 'tif')),
    'does not say which: give': lambda folder: data.load(data.tiff(folder, data.bands(6))),
    "channels as the pipeline's loader gives it": lambda _: data.check_image(IMAGE[..., :1]),
    'takes the same ones of each': data.other_counts,
    'is compressed in a way that tifffile alone does not know': data.unknown_compression,
    'are for grey levels from 0 to 255': lambda _: data.check_image(IMAGE.astype(np.uint16) * 16),
    'the val_evaluator gives': runs.unknown_best,
    'the optimizer is another one': lambda _: runs.resume(runs.take_adam),
    'the loss is infinite or not a number in': runs.diverge,
    'add --launcher pytorch': runs.forgotten_launcher,
    'could not be written': runs.full_disk,
    'cannot judge': runs.judge_nothing,
    'have a box or score that is not finite': lambda _: runs.evaluate(runs.sample(score=float('nan'))),
    'columns, and predict_box_type=': lambda _: runs.evaluate(runs.sample([1.0, 2, 3, 4])),
    'the name does not say where the patch was cut': lambda folder: runs.submission(folder / 's', 'a'),
    'a submission has one file for each class': lambda folder: runs.submission(folder / 's', name='car/van'),
    'exists already: remove it, or name a new folder': runs.submission,
    "mmrotate's DOTAMetric would merge it as": lambda folder: runs.prepare(
        runs.host_metric(merge_patches=True, outfile_prefix=str(folder / 's')), 'a__b__1__0___0'
    ),
    'has no turn by': runs.sixths,
    'has no moment rule: a Gaussian cannot pass it': lambda _: torch.fft.fft(runs.gaussian()),
    'mean and var must have one': lambda _: adf.Gaussian(torch.zeros(2), torch.ones(3)),
    'must be finite and non-negative': lambda _: adf.Gaussian(torch.zeros(2), torch.ones(2), min_variance=-1.0),
    'has no active layer of the kind Dropout and no functional dropout': lambda _: adf.predict(
        torch.nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4), 2
    ),
    'got a function at place': lambda _: adf.ReLU(1, torch.abs),
    'must return mean and variance, not a': runs.no_pair,
    'needs dropout layers, and the detector has none': runs.no_dropout,
    'has no counterpart in mmdet': runs.no_counterpart,
    'cannot be imported: pip install': runs.unimportable,
    **commands.REFUSED,
}
TOLD = {
    'is it misspelt?': 'nonsense=1',
    'is a variable of the config': 'data_root=elsewhere/',
    'the config has keys of mmdet 2': 'total_epochs=24',
    'angle_version differs between parts': (
        'model.bbox_head.angle_version=le90 model.bbox_head.bbox_coder.angle_version=oc'
    ),
    "which returns e2cnn's": 'model.backbone.type=mmrotate.ReResNet',
    'the heads begin with weights that were': runs.heads_of_others,
    'because the config does not have their class': lambda folder: data.labels(folder, SHIP, BOAT),
    'classes of the config without any object': lambda folder: data.labels(folder, SHIP, classes=('ship', 'zeppelin')),
    'images of another ending than img_suffix are left out': lambda folder: data.labels(
        folder, SHIP, images=('a.png', 'b.jpg')
    ),
    'images have another size than their label files say': data.resized_images,
    ', as in others of its kind': lambda folder: (
        data.image_file(folder, np.dstack([IMAGE, IMAGE[..., 0]])), data.images_of(folder, 'png'),
    ),
    "the checkpoint's rule": lambda _: runs.resume(lambda cfg: cfg.param_scheduler[0].update(milestones=[1])),
    'nothing is left to train': lambda _: runs.resume(lambda _: None, done=3),
    'as many detections as': runs.limits,
    'has no ground truth: ': lambda _: runs.prepare(DOTAMetric()),
    'no ground truth: ': lambda _: runs.evaluate(runs.sample(labelled=False)),
    'have no labels and do not count': lambda _: runs.evaluate(runs.sample(), runs.sample(labelled=False)),
}  # fmt: skip
ELSEWHERE = {  # message: file of the test, and what it says there
    'mmrotate_plugin needs': ('test_packaging.py', 'mmrotate_plugin needs'),
    'set-up:': ('test_setup.py', 'set-up:'),
    'undefined symbol: _ZN': ('test_setup.py', 'undefined symbol'),
    'does not support to load mmrotate_plugin config': ('test_hosts_tools.py', 'does not support to load'),
    "object of type 'GeometricTensor' has no len()": ('engine/checks/test_compiled_operators.py', 'GeometricTensor'),
    'riroi_align_rotated_forward_impl: implementation for device cpu not found': (
        'engine/checks/test_compiled_operators.py', 'implementation for device'),
    'nms_rotated_impl: implementation for device cuda:0 not found': (
        'engine/checks/test_compiled_operators.py', 'implementation for device cuda:0 not found'),
    "module 'collections' has no attribute 'Sequence'": ('conftest.py', '1.0.0rc1'),  # a host that does not import
    'Weights only load failed': ('utils/test_safe_load.py', 'loading'),  # torch's, in a program not ours
    'views shows the image as it is': ('models/test_time_augs/test_rotated_tta.py', 'views shows the image as it is'),
    'ground control points that give no map': (
        'apis/test_prediction.py', 'ground control points that give no map'),  # rasterio may be missing
    'has rational polynomial coefficients': ('apis/test_prediction.py', 'RPCs.*gdalwarp -rpc'),
    'files could not be used': ('tools/test_predict_files.py', '1 of 4 files could not be used:'),
    'number their classes differently': (
        'engine/checks/test_head_classes.py', "in the first and 'small-vehicle' in number 2"),
    "'Tensor' object is not callable": ('adf/test_adf_arithmetic.py', 'mean'),
}  # fmt: skip
NECKS = {
    'carafe': "type='mmdet.FPN_CARAFE', out_channels=8, num_outs=2",
    'doubling': "type='mmdet.CSPNeXtPAFPN', out_channels=8, num_csp_blocks=1, norm_cfg=dict(type='BN')",
}


def messages() -> list[str]:
    """Headings of the page: the texts that users search for."""
    return re.findall(r'^### `(.+?)`(?: |,|$)', PAGE.read_text(encoding='utf-8'), re.MULTILINE)


class Touches:
    def __reduce__(self):
        return eval, ("open('/nonexistent/x', 'w')",)


@pytest.fixture(scope='module')
def files(small_config, scenes, tmp_path_factory):
    """Good files by the names in the command lines, and bad checkpoints."""
    from mmrotate_plugin.apis.inference import build_model

    root = tmp_path_factory.mktemp('messages')

    def save(name, options=()):
        state = build_model(load_config(str(small_config), list(options))).state_dict()
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
        torch.save(build_model(load_config(bad[name])).state_dict(), bad[f'{name}_ckpt'])
    places = {name: str(root / f'{name}.pth') for name in ('cut', 'damaged', 'evil', 'headless', 'other')}
    places |= {**bad, 'ckpt': str(root / 'good.pth'), 'cfg': str(small_config)}
    refusing = root / 'refusing.py'
    refused = "dict(dataset=dict(type='RefusingDataset'))"
    head, tail = f"_base_ = '{small_config}'\n", f'val_dataloader = dict(_delete_=True, {refused[5:]}\n'
    tail += "val_cfg = dict(_delete_=True)\nval_evaluator = dict(_delete_=True, type='DOTAMetric')\n"
    (root / 'with_val.py').write_text(head + tail)
    refusing.write_text(f'{head}train_dataloader = {refused}\ntest_dataloader = {refused}\n{tail}')
    places['with_val'] = str(root / 'with_val.py')
    places['refusing'] = str(refusing)
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


TABLES = (TRIGGERS, REFUSED, TOLD, ELSEWHERE)


def test_every_message_of_the_page_is_in_one_table():
    page, tried = messages(), [message for table in TABLES for message in table]
    assert len(page) > 80 and len(set(page)) == len(page)
    assert sorted(set(page) - set(tried)) == [], 'give each a trigger'
    assert sorted(set(tried) - set(page)) == [], 'the page has them no longer'
    assert len(set(tried)) == len(tried)


@pytest.mark.parametrize('message', ELSEWHERE)
def test_the_test_that_covers_a_message_is_there(message):
    file, words = ELSEWHERE[message]
    assert words in (ROOT / 'tests' / file).read_text(encoding='utf-8').replace("\\'", "'")


def command(name, places, out):
    """The words of a tool's command line, without an option."""
    words = [word.format(**places, out=out) for word in {**CONFIG_TOOLS, **WITHOUT_OPTIONS}[name].split()]
    return words[: -1 if words[-1] == '--cfg-options' else None]


def one_line(capsys, status, message):
    printed = capsys.readouterr().err
    errors = [text for text in printed.splitlines() if text.startswith('error: ')]
    assert status == 2 and len(errors) == 1 and message in errors[0], printed[-2000:]
    assert 'Traceback' not in printed


@pytest.mark.parametrize('message', REFUSED)
def test_what_a_shared_part_refuses_is_one_line(message, tmp_path, capsys):
    capsys.readouterr()
    one_line(capsys, run(REFUSED[message], tmp_path), message)


@pytest.mark.parametrize('message', TOLD)
def test_what_is_told_ends_nothing(message, small_config, tmp_path, capsys, monkeypatch):
    texts = []
    logger = MMLogger.get_current_instance()

    class Notes(logging.Handler):
        def emit(self, record):
            texts.append(record.getMessage())

    notes, level = Notes(), logger.level
    monkeypatch.setattr(logger, 'handlers', [notes])
    logger.setLevel(logging.INFO)
    cause = TOLD[message]
    try:
        if isinstance(cause, str):
            status = run(lambda options: load_config(str(small_config), options), cause.split())
        else:
            status = run(cause, tmp_path)
    finally:
        logger.setLevel(level)
    assert status == 0, capsys.readouterr().err
    assert any(message in text for text in texts), texts


# ---- why one tool is enough for what several share

DATA_TOOLS = ('train', 'test', 'calibrate_uncertainty', 'evaluate_angles', 'evaluate_uncertainty')
SHARED = {
    'config.load_config': (*CONFIG_TOOLS, 'show_basis'),
    'checkpoint.read_checkpoint': (*CHECKPOINT_TOOLS, *WITHOUT_OPTIONS),
    'runner.build_runner': ('train', 'test'),
    'inference.build_model': [name for name in (*CONFIG_TOOLS, 'show_basis') if name not in ('train', 'test')],
}


@pytest.mark.parametrize(('function', 'name'), [(f, name) for f, names in SHARED.items() for name in names])
def test_tools_read_and_build_by_the_same_functions(function, name, files, tool, tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise UsageError('the sentinel')

    for each in TABLE:  # what is imported only now would keep the stand-in
        import_module(f'mmrotate_plugin.commands.{each.replace("-", "_")}')
    module, attribute = function.split('.')
    shared = getattr(import_module(f'mmrotate_plugin.apis.{module}'), attribute)
    places = [
        place
        for key, place in sys.modules.items()
        if key.startswith('mmrotate_plugin.') and vars(place).get(attribute) is shared
    ]
    assert len(places) > 1
    for place in places:
        monkeypatch.setattr(place, attribute, refuse)
    one_line(capsys, tool(name)(command(name, files, tmp_path)), 'the sentinel')


@pytest.mark.parametrize('name', DATA_TOOLS)
def test_what_a_data_set_refuses_is_one_line_in_every_tool(name, files, tool, tmp_path, capsys):
    from mmengine.registry import DATASETS

    def refuse(**_):
        raise ValueError('the sentinel of a data set')

    DATASETS.register_module('RefusingDataset', module=refuse, force=True)
    places = {**files, 'cfg': files['refusing'], 'with_val': files['refusing']}
    one_line(capsys, tool(name)(command(name, places, tmp_path)), 'the sentinel of a data set')


@pytest.mark.parametrize('name', CONFIG_TOOLS)
@pytest.mark.parametrize('option', ['foo', '=1', 'model.backbone.depth.x=1'])
def test_options_that_cannot_be_read(name, option, files, tool, tmp_path, capsys):
    words = [word.format(**files, out=tmp_path) for word in CONFIG_TOOLS[name].split()]
    capsys.readouterr()
    assert tool(name)([*words, option]) == 2
    assert '--cfg-options' in capsys.readouterr().err.splitlines()[-1]
