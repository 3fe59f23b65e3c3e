"""The command `predict` with an untrained detector: text, JSON, crops, a video, and the status of broken files."""

import json

import cv2
import numpy as np
import pytest
import torch

from mmrotate_plugin_cli.main import main

pytest.importorskip('mmrotate')
from mmrotate_plugin.apis import load_detector
from mmrotate_plugin.apis.config import load_config
from mmrotate_plugin.apis.inference import build_model


@pytest.fixture(scope='module')
def untrained(small_config, tmp_path_factory):
    """Config and checkpoint of a detector of two stages whose weights are random."""
    torch.manual_seed(0)
    cfg = load_config(str(small_config))
    path = tmp_path_factory.mktemp('untrained') / 'random.pth'
    meta = {'dataset_meta': {'classes': tuple('abcde')}}
    torch.save({'state_dict': build_model(cfg).state_dict(), 'meta': meta}, path)
    return [str(small_config), str(path)]


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate(((65, 65), (65, 97), (65, 65), (97, 65), (65, 97))):
        cv2.imwrite(str(folder / f'{i}.png'), rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return folder


LIMITS = ['test_dataloader.dataset.pipeline.1.scale=(97,97)', 'model.test_cfg.score_thr=0.0',
          'model.test_cfg.max_per_img=6']  # fmt: skip
RUN = ['--device', 'cpu', '--score-thr', '0', '--cfg-options', *LIMITS]


def test_batches_of_an_equivariant_detector_equal_one_by_one(untrained, images):
    detector = load_detector(*untrained, device='cpu', cfg_options=LIMITS)
    read = [detector.read(file) for file in sorted(images.iterdir())]
    alone = [detector(image) for image in read]
    # relative round-off of float32 through eight layers, each a sum over at most 16 channels x 49 taps, scaled by norms
    bound = 8 * 16 * 49 * float(np.finfo(np.float32).eps)
    together = detector.detect_batch(read, batch_size=4)
    for one, other in zip(alone, together, strict=True):
        assert len(one.scores) == 6 and (one.labels == other.labels).all()
        assert np.abs(one.scores - other.scores).max() < bound
        assert np.abs(one.boxes - other.boxes).max() < bound * 100  # pixels, in images of a hundred
    # control: padded to one size, as a data loader does it, the same images give something else
    items = [detector.pipeline({'img': image, 'img_id': 0}) for image in read]
    padded = [detector._detections(sample, image, 0) for sample, image in zip(detector.run(items), read, strict=True)]
    worst = max(np.abs(one.scores - other.scores).max() for one, other in zip(alone, padded, strict=True))
    assert worst > 10 * bound


def test_everything_at_once_and_the_status_of_a_broken_file(untrained, images, tmp_path, capsys):
    folder, out = tmp_path / 'in', tmp_path / 'out'
    folder.mkdir()
    for name in ('0.png', '1.png'):
        (folder / name).write_bytes((images / name).read_bytes())
    writer = cv2.VideoWriter(str(folder / 'clip.avi'), cv2.VideoWriter.fourcc(*'MJPG'), 5, (64, 64))
    for _ in range(3):
        writer.write(cv2.resize(cv2.imread(str(images / '0.png')), (64, 64)))
    writer.release()
    (folder / 'broken.jpg').write_bytes(b'\xff\xd8\xff')
    save = ['--save', 'pictures', 'dota', 'yolo-obb', 'coco', 'crops', '--batch-size', '2']
    assert main(['predict', str(folder), *untrained, '--out', str(out), *save, *RUN]) == 1
    printed = capsys.readouterr()
    assert '1 of 4 files could not be used:' in printed.err and "broken.jpg' is broken" in printed.err
    assert '0.png: 6 detections -> ' in printed.out and 'clip.avi: 18 detections in 3 frames' in printed.out
    assert '3 of 4 images done' in printed.out and '(1/4, ' in printed.out
    content = json.loads((out / 'coco.json').read_text())
    assert len(content['images']) == 5 and len(content['annotations']) == 30
    assert len((out / 'yolo-obb/1.txt').read_text().splitlines()) == 6
    assert len(list((out / 'crops/clip.avi/000003').iterdir())) == 6
    assert cv2.VideoCapture(str(out / 'clip.avi')).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    several = [str(folder / '0.png'), str(folder / '1.png')]  # as a shell expands a pattern
    assert main(['predict', *several, *untrained, '--out', str(tmp_path / 'more'), *RUN]) == 0
    assert sorted(path.name for path in (tmp_path / 'more').iterdir()) == ['0.png', '1.png']
    capsys.readouterr()


@pytest.mark.parametrize('words, text', [
    (['--batch-size', '0'], '--batch-size must be 1 or more'),
    (['--batch-size', '2', '--patch-size', '64'], '--patch-batch-size is what counts'),
    (['--score-thr', 'nan'], '--score-thr must be from 0 to 1'), (['--save', 'boxes'], "invalid choice: 'boxes'"),
])  # fmt: skip
def test_wrong_options(words, text, capsys):
    with pytest.raises(SystemExit) as stop:
        main(['predict', 'a.png', 'c.py', 'c.pth', '--out', 'o', *words])
    assert stop.value.code == 2 and text in capsys.readouterr().err
