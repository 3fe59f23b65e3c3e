"""The tools as users call them: train, test, draw, resume, and every kind of wrong input."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch

pytest.importorskip('mmrotate')
ROOT = Path(__file__).resolve().parents[2]


def log_of(work_dir: Path) -> str:
    return ''.join(path.read_text() for path in sorted(work_dir.glob('*/*.log')))


def only_error(capsys) -> str:
    """The one line on stderr, without the prefix."""
    lines = capsys.readouterr().err.strip().split('\n')
    assert len(lines) == 1 and lines[0].startswith('error: '), lines
    return lines[0]


def test_training_leaves_log_config_checkpoint_and_pictures(trained):
    assert (trained / 'epoch_1.pth').is_file()
    assert (trained / 'tiny.py').is_file()
    assert 'eta: ' in log_of(trained)
    assert log_of(trained).count('Epoch(train)') == 3  # each of three iterations, though the config says every 50th
    assert len(list((trained / 'pictures/val').glob('*.png'))) == 2


def test_test_writes_metrics_predictions_and_pictures(tool, tiny_config, trained, tmp_path, capsys):
    out, show = tmp_path / 'results/predictions.pkl', tmp_path / 'show'
    options = ['--work-dir', str(tmp_path), '--out', str(out), '--show-dir', str(show), '--show-score-thr', '0.001']
    assert tool('test')([str(tiny_config), str(trained / 'epoch_1.pth'), *options]) == 0
    report = json.loads((tmp_path / 'test_metrics.json').read_text())
    assert set(report['metrics']) == {'dota/mAP', 'dota/AP50'}
    with out.open('rb') as file:
        predictions = pickle.load(file)
    assert [len(p['pred_instances']['scores']) for p in predictions] == [5] * 6
    assert sorted(p.name for p in out.parent.iterdir()) == ['predictions.pkl']
    assert len(list(show.glob('*.png'))) == 6
    assert '| mAP ' in log_of(tmp_path)
    capsys.readouterr()


def test_image_demo_on_a_folder_goes_on_after_broken_files(tool, tiny_config, trained, scenes, tmp_path, capsys):
    images, out = tmp_path / 'images', tmp_path / 'out'
    images.mkdir()
    whole = (scenes / 'images/scene0.png').read_bytes()
    (images / 'a.png').write_bytes(whole)
    (images / 'b.png').write_bytes(whole[: len(whole) // 2])
    (images / 'c.txt').write_text('no image')
    (images / 'd.jpg').write_bytes(b'')
    args = [str(images), str(tiny_config), str(trained / 'epoch_1.pth'), '--out', str(out), '--score-thr', '0.001']
    assert tool('image_demo')([*args, '--device', 'cpu']) == 1  # done, but for the broken ones
    printed = capsys.readouterr()
    assert '2 of 3 files could not be used:' in printed.err
    assert 'a.png: 5 detections -> ' in printed.out
    assert '1 of 3 images drawn' in printed.out
    assert all(f"{name}' is" in printed.err for name in ('b.png', 'd.jpg')) and 'c.txt' in printed.err
    picture = cv2.imread(str(out / 'a.png'))
    assert picture.shape == (7 * 60, 7 * 80, 3)
    assert [p.name for p in out.iterdir()] == ['a.png']


def test_image_demo_goes_over_large_images_in_patches(tool, tiny_config, trained, scenes, tmp_path, capsys):
    image, out = tmp_path / 'large.png', tmp_path / 'out.png'
    cv2.imwrite(str(image), cv2.resize(cv2.imread(str(scenes / 'images/scene0.png')), (300, 200)))
    args = [str(image), str(tiny_config), str(trained / 'epoch_1.pth'), '--out', str(out), '--score-thr', '0.001']
    args += ['--device', 'cpu', '--patch-size', '96']
    assert tool('image_demo')(args) == 0
    printed = capsys.readouterr()
    found = int(printed.out.split('large.png: ')[1].split(' ')[0])
    assert 5 < found <= 12 * 5  # the config's detector finds 5 in one pass; here in 4 x 3 patches
    assert '12 patches [' in printed.err and '] 12/12' in printed.err
    assert cv2.imread(str(out)) is not None
    assert tool('image_demo')([*args, '--patch-overlap', '96']) == 2
    assert '--patch-overlap must be 1 or more and below the patch size 96' in only_error(capsys)
    with pytest.raises(SystemExit):
        tool('image_demo')([*args[:-2], '--patch-overlap', '9'])
    assert 'need --patch-size' in capsys.readouterr().err


@pytest.mark.parametrize('workers', [0, 1])
def test_a_damaged_image_in_a_test_is_one_line(workers, tool, tiny_config, trained, scenes, tmp_path, capsys):
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
        for file in (scenes / folder).iterdir():
            (tmp_path / folder / file.name).write_bytes(file.read_bytes())
    damaged = tmp_path / 'images/scene3.png'
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    damaged.write_bytes(data)
    part = 'test_dataloader.dataset'
    options = [f'{part}.type=mmrotate_plugin.DOTADataset', f'{part}.data_root={tmp_path}/',
               f'test_dataloader.num_workers={workers}']  # fmt: skip
    args = [str(tiny_config), str(trained / 'epoch_1.pth'), '--work-dir', str(tmp_path), '--cfg-options', *options]
    assert tool('test')(args) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f'error: {damaged} cannot be decoded') and 'check_pixels=True' in error
    assert tool('test')([*args, f'{part}.check_pixels=True']) == 0
    capsys.readouterr()


def test_image_demo_draws_horizontal_boxes(tool, tmp_path, scenes, capsys):
    config, checkpoint, out = tmp_path / 'hbox.py', tmp_path / 'hbox.pth', tmp_path / 'picture.jpg'
    config.write_text("""
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
model = dict(bbox_head=dict(num_classes=2), test_cfg=dict(score_thr=0.0, nms_pre=20, max_per_img=4))
""")
    from mmdet.registry import MODELS
    from mmengine.config import Config

    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    state = MODELS.build(cfg.model).state_dict()
    meta = {'dataset_meta': {'classes': ('left', 'right')}}
    torch.save({'state_dict': state, 'meta': meta}, checkpoint)
    image = scenes / 'images/scene0.png'
    args = [str(image), str(config), str(checkpoint), '--out', str(out), '--score-thr', '0', '--device', 'cpu']
    small = 'test_dataloader.dataset.pipeline.1.scale=(128,96)'
    assert tool('image_demo')([*args, '--cfg-options', small]) == 0
    assert '4 detections' in capsys.readouterr().out
    assert cv2.imread(str(out)) is not None


def test_resume_goes_on_where_the_training_stopped(tool, tiny_config, trained, tmp_path, capsys):
    start = str(trained / 'epoch_1.pth')
    args = [str(tiny_config), '--work-dir', str(tmp_path), '--no-validate', '--cfg-options', 'train_cfg.max_epochs=2']
    assert tool('train', report=True)([*args, '--resume', start]) == 0
    assert (tmp_path / 'report.html').is_file() and not (trained / 'report.html').exists()
    text = log_of(tmp_path)
    assert 'resumed epoch: 1, iter: 3' in text and 'Epoch(train) [1]' not in text and 'Epoch(train) [2]' in text
    assert 'Epoch(val)' not in text
    assert (tmp_path / 'epoch_2.pth').is_file()
    assert tool('train')([*args, '--resume']) == 0  # nothing left to do
    assert log_of(tmp_path).count('Epoch(train) [2]') == text.count('Epoch(train) [2]')
    capsys.readouterr()


def test_amp_on_the_cpu_trains_in_bfloat16(tool, tiny_config, tmp_path, monkeypatch, capsys):
    if torch.cuda.is_available():
        pytest.skip('mmengine has an optimizer wrapper for GPUs')
    from mmdet.models import FCOS

    seen, extract = [], FCOS.extract_feat

    def spy(self, inputs):
        out = extract(self, inputs)
        seen.append(out[0].dtype)
        return out

    monkeypatch.setattr(FCOS, 'extract_feat', spy)
    args = [str(tiny_config), '--work-dir', str(tmp_path), '--no-validate', '--amp']
    assert tool('train')(args) == 0
    assert set(seen) == {torch.bfloat16}
    state = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict']
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}
    capsys.readouterr()


@pytest.mark.parametrize('amp', [True, False])
def test_an_operation_without_bfloat16_is_named(amp, tool, tiny_config, tmp_path, monkeypatch, capsys):
    if torch.cuda.is_available():
        pytest.skip('GPUs train in float16')
    from mmdet.models import FCOS

    def loss(*_):
        raise TypeError('Got unsupported ScalarType BFloat16')

    monkeypatch.setattr(FCOS, 'loss', loss)
    args = [str(tiny_config), '--work-dir', str(tmp_path), '--no-validate', *['--amp'][:amp]]
    if amp:
        assert tool('train')(args) == 2
        assert 'no bfloat16 on the CPU (Got unsupported ScalarType BFloat16)' in only_error(capsys)
    else:
        with pytest.raises(TypeError):  # not explained away
            tool('train')(args)


@pytest.fixture(scope='module')
def bad(tiny_config, trained, tmp_path_factory) -> dict[str, str]:
    """Files and folders that do not work, by name; the good ones too."""
    root = tmp_path_factory.mktemp('bad')
    checkpoint = trained / 'epoch_1.pth'
    deeper = root / 'deeper.py'
    deeper.write_text(tiny_config.read_text().replace('depth=18', 'depth=34'))
    (root / 'syntax.py').write_text('model = dict(\n')
    (root / 'base.py').write_text("_base_ = './nowhere.py'\n")
    (root / 'part.py').write_text('train_cfg = dict(max_epochs=1)\n')
    (root / 'text.pth').write_text('this is a text')
    (root / 'cut.pth').write_bytes(checkpoint.read_bytes()[:5000])
    classifier = dict.fromkeys(('conv1.weight', 'layer1.0.conv1.weight', 'fc.weight'), torch.zeros(2))
    torch.save(classifier, root / 'cls.pth')
    torch.save([1, 2], root / 'list.pth')
    (root / 'broken.png').write_bytes(b'\x89PNG broken')
    (root / 'empty').mkdir()
    (root / 'no_labels').mkdir()
    (root / 'texts').mkdir()
    (root / 'texts/a.txt').write_text('x')
    return {'root': str(root), 'cfg': str(tiny_config), 'ckpt': str(checkpoint), 'deeper': str(deeper)}


IMAGE = '{root}/image.png'
CASES = [
    ('train', '{root}/tiny.py', ["config '{root}/tiny.py' does not exist"]),
    ('train', '{root}', ["config '{root}' is a folder"]),
    ('train', '{root}/depper.py', ['does not exist; did you mean {root}/deeper.py?']),
    ('train', '{root}/text.pth', ['not a config file', '.py, .json or .yaml']),
    ('train', '{root}/syntax.py', ['cannot be read', 'SyntaxError']),
    ('train', '{root}/base.py', ['cannot be read', 'nowhere.py']),
    ('train', '{root}/part.py', ["has no 'model'"]),
    ('train', '{cfg} --work-dir {root}/text.pth/x', ["--work-dir '{root}/text.pth/x' cannot be written"]),
    ('train', '{cfg} --work-dir {root}/w --resume {root}/none.pth', ["--resume '{root}/none.pth' does not exist"]),
    ('train', '{cfg} --work-dir {root}/w --resume {root}/cls.pth', ['no state of a training', 'load_from=']),
    ('train', '{deeper} --work-dir {root}/w --resume {ckpt}', ['does not fit', 'missing in it (backbone.layer1.2']),
    ('train', '{cfg} --work-dir {root}/w --auto-scale-lr', ['--auto-scale-lr', 'base_batch_size']),
    ('train', '{cfg} --work-dir {root}/w --launcher slurm', ['--launcher slurm without a GPU']),
    ('train', '{cfg} --work-dir {root}/w --cfg-options model.backbone.depth.x=1', ['--cfg-options']),
    ('train', '{cfg} --work-dir {root}/w --cfg-options model.type=mmdet.FCOSS', ['cannot be built', 'FCOSS']),
    (
        'train',
        '{cfg} --work-dir {root}/w --cfg-options train_dataloader.dataset.data_root={root}/empty/',
        ['train_dataloader', '{root}/empty/'],
    ),
    ('test', '{cfg} {root}/none.pth', ["checkpoint '{root}/none.pth' does not exist"]),
    ('test', '{cfg} {root}', ['is a folder, not a file']),
    ('test', '{cfg} {root}/text.pth', ['is not a checkpoint: 14 bytes']),
    ('test', '{cfg} {root}/cut.pth', ['is not a whole checkpoint', 'the end is missing']),
    ('test', '{cfg} {root}/list.pth', ['not a checkpoint of a model', 'list']),
    ('test', '{cfg} {root}/cls.pth --work-dir {root}/w', ['does not fit', 'a classification network']),
    (
        'test',
        '{deeper} {ckpt} --work-dir {root}/w',
        ['missing in it', 'seems to be mmdet.FCOS on mmdet.ResNet-18, 1 classes; the model is FCOS on ResNet-34'],
    ),
    (
        'test',
        '{cfg} {ckpt} --work-dir {root}/w --cfg-options model.neck.out_channels=64 model.bbox_head.in_channels=64',
        ['have another shape (neck.lateral_convs.0.conv.weight (checkpoint (32, 32, 1, 1), model (64, 32, 1, 1))'],
    ),
    ('test', '{cfg} {ckpt} --work-dir {root}/w --show-dir {root}/text.pth', ["--show-dir '{root}/text.pth'"]),
    ('test', '{cfg} {ckpt} --work-dir {root}/w --out {root}/text.pth/o.pkl', ['--out', 'cannot be written']),
    ('image_demo', '{root}/none.png {cfg} {ckpt} --out {root}/o.png', ["image '{root}/none.png' does not exist"]),
    ('image_demo', '{root}/broken.png {cfg} {ckpt} --out {root}/o.png', ['broken.png', 'its end is missing']),
    ('image_demo', '{root}/empty {cfg} {ckpt} --out {root}/o', ["'{root}/empty' is empty"]),
    ('image_demo', '{root}/texts {cfg} {ckpt} --out {root}/o', ['could be read as an image']),
    ('image_demo', '{root}/broken.png {cfg} {ckpt} --out {root}/text.pth/o', ['cannot be written']),
    ('image_demo', '{root}/broken.png {cfg} {ckpt} --out {root}/broken.png', ['would replace the image']),
    ('image_demo', '{root}/texts {cfg} {ckpt} --out {root}/texts', ['folder of the images']),
    ('image_demo', '{root}/broken.png {cfg} {ckpt} --out {root}/o.xyz', ['must end with one of .png']),
    ('image_demo', '{root}/broken.png {cfg} {ckpt} --out {root}/o.png --device foo', ["--device 'foo'"]),
]


@pytest.mark.parametrize(('name', 'line', 'texts'), CASES, ids=[f'{c[0]}-{i}' for i, c in enumerate(CASES)])
def test_wrong_input_is_one_clear_line(name, line, texts, bad, tool, capsys):
    if '--launcher' in line and torch.cuda.is_available():
        pytest.skip('needs a machine without a GPU')
    status = tool(name)([word.format(**bad) for word in line.split()])
    error = only_error(capsys)
    assert status == 2
    for text in texts:
        assert text.format(**bad) in error


def test_a_process_ends_with_status_2_and_no_traceback(tmp_path):
    command = [sys.executable, str(ROOT / 'tools/test.py'), 'nowhere.py', 'nowhere.pth']
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: config 'nowhere.py' does not exist"


@pytest.mark.parametrize('name', ['train', 'test', 'image_demo'])
def test_help_names_the_options(name, tool, capsys):
    with pytest.raises(SystemExit) as stop:
        tool(name)(['--help'])
    assert stop.value.code == 0
    assert '--cfg-options' in capsys.readouterr().out
