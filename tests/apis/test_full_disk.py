"""A disk that is full, and folders that cannot be written: one line, status 2, nothing half-written."""

import os
import resource
import signal
import sys
import traceback

import cv2
import numpy as np
import prediction_data as data
import pytest

from mmrotate_plugin.apis import save_predictions
from mmrotate_plugin.apis.run_command import run
from mmrotate_plugin.engine.report import save_detections
from mmrotate_plugin_cli.main import main

SHIP = '40 32 80 32 80 50 40 50 ship '
KEPT = {'.split-dataset.json', '.convert-dataset.json', '.predict.jsonl'}  # from which the same command continues


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A labelled folder, detections on patches, a video, and the numbers of a test."""
    root = tmp_path_factory.mktemp('full')
    data.write_images(root / 'd', ['images/a.png', 'images/b.png'])
    for folder, names, end in (
        ('d/labelTxt', ('a', 'b'), '0'),
        ('found/dota', [f'a__1__{i}___0' for i in range(20)], '.5'),
    ):
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / f'{name}.txt').write_text(f'{SHIP}{end}\n')
    data.write_video(root / 'clip.avi', frames=30)
    boxes = np.array([[50.0, 40, 40, 18, 0.1]])
    image = dict(img_id='a', bboxes=boxes, scores=np.ones(1), labels=np.zeros(1, int), bboxes_std=None, gt_bboxes=boxes,
                 gt_labels=np.zeros(1, int), gt_ignored=np.zeros(1, bool))  # fmt: skip
    save_detections(root / 'run/report/test.npz', [image], ['ship'], eval_mode='area')
    return root


def predict(source, save):
    return lambda out: save_predictions(data.Bright(), source, out, save=save)


COMMANDS = {
    'browse-dataset': lambda root, out: main(['browse-dataset', f'{root}/d', '--out', out]),
    'split-dataset': lambda root, out: main(['split-dataset', f'{root}/d', out, '--sizes', '64', '--gaps', '9']),
    'convert-dataset': lambda root, out: main(['convert-dataset', f'{root}/d', out, '--to', 'coco']),
    'merge-predictions': lambda root, out: main(['merge-predictions', f'{root}/found', out]),
    'merge to JSON': lambda root, out: main(['merge-predictions', f'{root}/found', f'{out}.json']),
    'init': lambda root, out: main(['init', f'{root}/d', '--out', f'{out}.py', '--device', 'cpu']),
    'report': lambda root, out: main(['report', f'{root}/run', '--out', out]),
    'predict': lambda root, out: run(predict(root / 'd/images', ['pictures', 'dota', 'coco', 'crops']), out),
    'predict a video': lambda root, out: run(predict(root / 'clip.avi', ['pictures', 'dota']), out),
}


def limited(command, limit):
    """Run a command in a process that cannot write more than `limit` bytes to a file; its status and what it says."""
    read, write = os.pipe()
    process = os.fork()
    if not process:
        status = 99
        try:
            cv2.setNumThreads(0)
            os.dup2(write, 1)
            os.dup2(write, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, 'w', closefd=False) for number in (1, 2))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            status = command() or 0
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    os.close(write)
    with os.fdopen(read, errors='replace') as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), said


def one_line(status, said):
    errors = [line for line in said.splitlines() if line.startswith('error: ')]
    assert status == 2 and len(errors) == 1 and 'Traceback' not in said, said
    return errors[0]


@pytest.mark.parametrize('name', COMMANDS)
@pytest.mark.parametrize('limit', [0, 90])
def test_a_full_disk_is_one_line(name, limit, made, tmp_path):
    out = tmp_path / 'out'
    line = one_line(*limited(lambda: COMMANDS[name](made, str(out)), limit))
    assert 'could not be written' in line or 'cannot be written' in line
    assert 'File too large' in line or 'OpenCV' in line
    left = {path.name for path in tmp_path.rglob('*') if path.is_file()}
    assert {file for file in left if file.startswith('.')} <= KEPT
    assert not left & {'dataset.html', 'report.html', 'coco.json', 'instances.json', 'out.json', 'out.py', 'out.zip'}


@pytest.mark.parametrize('name', COMMANDS)
def test_a_folder_that_cannot_be_written_is_one_line(name, made):
    """A file in place of a folder refuses root, too, unlike the rights of a folder."""
    out = made / 'clip.avi/out'
    before = {path: path.stat().st_mtime_ns for path in made.rglob('*')}
    assert 'clip.avi/out' in one_line(*limited(lambda: COMMANDS[name](made, str(out)), resource.RLIM_INFINITY))
    assert {path: path.stat().st_mtime_ns for path in made.rglob('*')} == before


def test_a_video_goes_on_after_a_full_disk(made, tmp_path):
    """The line of the journal that the disk cut does not count."""
    for limit in (3000, resource.RLIM_INFINITY):
        status, said = limited(lambda: COMMANDS['predict a video'](made, str(tmp_path / 'out')), limit)
        assert status == (2 if limit == 3000 else 0), said
    assert len(list((tmp_path / 'out/dota/clip.avi').iterdir())) == 30
    assert cv2.VideoCapture(str(tmp_path / 'out/clip.avi')).get(cv2.CAP_PROP_FRAME_COUNT) == 30
