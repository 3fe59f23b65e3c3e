"""`train.py --tensorboard` writes what TensorBoard shows: scalars over the training, and pictures of detections."""

import io

import cv2
import numpy as np
import pytest

events = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')


def read(work_dir):
    (file,) = work_dir.glob('*/vis_data/events.out.tfevents.*')
    found = events.EventAccumulator(str(file), size_guidance={events.IMAGES: 0, events.SCALARS: 0})
    found.Reload()
    return found


def test_scalars_and_pictures_are_written(trained):
    found = read(trained)
    scalars = {tag: [event.value for event in found.Scalars(tag)] for tag in found.Tags()['scalars']}
    assert {'lr', 'loss', 'loss_cls', 'loss_bbox', 'dota/mAP'} <= scalars.keys()
    assert len(scalars['loss']) == 3 and np.isfinite(scalars['loss']).all()  # six images in batches of two
    assert [event.step for event in found.Scalars('loss')] == [1, 2, 3]
    # beside TensorBoard's, mmengine's own file is still written, with the same numbers
    (local,) = trained.glob('*/vis_data/scalars.json')
    assert f'{scalars["loss"][0]:.4f}'[:5] in local.read_text()

    files = {f'val/{file.stem}': file for file in (trained / 'pictures' / 'val').iterdir()}
    assert len(files) == 2 and set(found.Tags()['images']) == files.keys()
    for tag, file in files.items():
        (image,) = found.Images(tag)
        assert image.step == 3
        pixels = cv2.imdecode(np.frombuffer(io.BytesIO(image.encoded_image_string).read(), np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(pixels, cv2.imread(str(file)))  # the colours too
    assert not list(trained.glob('*/vis_data/vis_image')), 'LocalVisBackend would write the pictures twice'


def test_without_tensorboard_the_option_says_what_to_install(tiny_config, tmp_path, tool, monkeypatch, capsys):
    monkeypatch.setitem(__import__('sys').modules, 'torch.utils.tensorboard', None)
    assert tool('train')([str(tiny_config), '--work-dir', str(tmp_path), '--tensorboard']) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: --tensorboard') and 'pip install tensorboard' in error
