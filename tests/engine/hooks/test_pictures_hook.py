"""The pictures show boxes where the objects are, whatever the pipeline did to the image."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.structures import BaseDataElement, InstanceData
from mmengine.visualization import LocalVisBackend

from mmrotate_plugin.engine.hooks.detection_pictures_hook import (
    DetectionPicturesHook,
    sample_name,
    sample_picture,
)
from mmrotate_plugin.registry import HOOKS
from mmrotate_plugin.structures import tensor_of


class Boxes:
    """What mmdet's and mmrotate's box types have in common."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __len__(self):
        return len(self.tensor)

    def __getitem__(self, index):
        return Boxes(self.tensor[index])


def make_sample(scores=(0.9,), truth=True, **meta):
    """A 600 x 400 image with a bright object of 200 x 60 pixels, slanted by 0.5 radians."""
    box = [300.0, 200.0, 200.0, 60.0, 0.5]
    sample = BaseDataElement(metainfo=dict(ori_shape=(400, 600), img_id=7, **meta))
    labels = torch.zeros(len(scores), dtype=torch.long)
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([box] * len(scores)), scores=torch.tensor(scores), labels=labels
    )
    if truth:
        sample.gt_instances = InstanceData(bboxes=Boxes(torch.tensor([box])), labels=torch.zeros(1, dtype=torch.long))
    image = np.zeros((400, 600, 3), np.uint8)
    corners = cv2.boxPoints(((300, 200), (200, 60), np.degrees(0.5)))
    return cv2.fillPoly(image, [corners.round().astype(np.int32)], (255, 255, 255)), sample


def packed(image):
    return torch.from_numpy(image).permute(2, 0, 1)


@pytest.mark.parametrize('truth', [True, False])
@pytest.mark.parametrize('scale', [(1.0, 1.0), (0.5, 0.5), (1.2, 0.9)])
def test_boxes_follow_scale_and_padding(scale, truth):
    image, sample = make_sample(truth=truth, scale_factor=scale, img_shape=(480, 768))
    resized = cv2.resize(image, (round(600 * scale[0]), round(400 * scale[1])))
    padded = cv2.copyMakeBorder(resized, 0, 77, 0, 33, cv2.BORDER_CONSTANT, value=(0, 0, 255))
    picture = sample_picture(packed(padded), sample, classes=['ship'], palette=[(0, 255, 0)])

    panels, rest = 1 + truth, 6 * truth
    height, width = resized.shape[:2]
    factor = (picture.shape[1] - rest) // panels // width
    assert picture.shape[1] == panels * width * factor + rest  # the padding was cut off
    shown = picture[24 : 24 + height * factor, -width * factor :]
    green = (shown == (0, 255, 0)).all(axis=2)
    assert green.sum() > 200 * scale[0]
    # every green pixel is at the edge of the white object: white and black within a few pixels
    white = cv2.resize((resized[..., 0] > 127).astype(np.uint8), None, fx=factor, fy=factor)
    near = np.ones((13, 13), np.uint8)
    edge = (cv2.dilate(white, near) == 1) & (cv2.erode(white, near) == 0)
    text = np.zeros_like(green)
    text[: round(0.33 * text.shape[0])] = True  # the label above the object is of that colour too
    assert edge[green & ~text].all()
    assert not (shown == (0, 0, 255)).all(axis=2).any()


def test_low_scores_are_left_out():
    image, sample = make_sample(scores=(0.29,), truth=False)
    picture = sample_picture(packed(image), sample, classes=['ship'], palette=[(0, 255, 0)], score_thr=0.3)
    assert not (picture == (0, 255, 0)).all(axis=2).any()


def test_images_without_objects_and_grey_floats():
    image, sample = make_sample()
    sample.pred_instances = sample.pred_instances[:0]
    sample.gt_instances = InstanceData(bboxes=Boxes(torch.zeros(0, 5)), labels=torch.zeros(0, dtype=torch.long))
    picture = sample_picture(packed(image)[:1] / 255 - 0.5, sample)
    assert picture.dtype == np.uint8 and picture.max() == 255


def run_hook(hook, tmp_path, number=5, mode='test'):
    dataset = SimpleNamespace(metainfo=dict(classes=('ship',)))
    loader = SimpleNamespace(dataset=dataset)
    runner = SimpleNamespace(
        work_dir=str(tmp_path),
        val_dataloader=loader,
        test_dataloader=loader,
        logger=MMLogger.get_instance('pictures'),
    )
    getattr(hook, f'before_{mode}_epoch')(runner)
    for i in range(number):
        image, sample = make_sample(img_path=f'/some/where/scene {i}.jpg')
        getattr(hook, f'after_{mode}_iter')(runner, i, {'inputs': [packed(image)]}, [sample])
    getattr(hook, f'after_{mode}_epoch')(runner)


@pytest.mark.parametrize('mode', ['val', 'test'])
def test_the_first_pictures_are_written_again_at_each_epoch(tmp_path, mode):
    hook = HOOKS.build(dict(type='DetectionPicturesHook', max_pictures=2))
    for _ in range(2):
        run_hook(hook, tmp_path, mode=mode)
        names = sorted(path.name for path in (tmp_path / 'pictures' / mode).iterdir())
        assert names == ['0000_scene_0.png', '0001_scene_1.png']


def test_all_pictures_into_a_folder(tmp_path):
    run_hook(DetectionPicturesHook(-1, out_dir=str(tmp_path / 'show'), suffix='.jpg'), tmp_path)
    assert len(list((tmp_path / 'show').glob('*.jpg'))) == 5
    run_hook(DetectionPicturesHook(0), tmp_path)
    assert not (tmp_path / 'pictures').exists()


def test_detections_in_bfloat16_are_drawn_too():
    pixels, sample = make_sample()
    for name in ('bboxes', 'scores'):
        values = sample.pred_instances[name]
        sample.pred_instances[name] = tensor_of(values).bfloat16()
    picture = sample_picture(packed(pixels), sample)
    assert picture.ndim == 3


def test_samples_of_a_classifier_have_no_picture(tmp_path):
    hook = DetectionPicturesHook(-1)
    _, sample = make_sample()
    del sample.pred_instances
    runner = SimpleNamespace(work_dir=str(tmp_path), val_dataloader=SimpleNamespace(dataset=None))
    hook.after_val_iter(runner, 0, {'inputs': [torch.zeros(3, 8, 8)]}, [sample])
    assert hook.written == [] and not (tmp_path / 'pictures').exists()


def test_backends_get_the_pictures_in_rgb_but_not_the_one_that_writes_files(tmp_path):
    seen = []
    backend = SimpleNamespace(add_image=lambda tag, image, step: seen.append((tag, image, step)))
    backends = dict(local=LocalVisBackend(str(tmp_path)), other=backend)
    runner = SimpleNamespace(
        work_dir=str(tmp_path),
        val_dataloader=SimpleNamespace(dataset=None),
        visualizer=SimpleNamespace(_vis_backends=backends),
        iter=7,
    )
    image, sample = make_sample(img_path='ship.png')
    DetectionPicturesHook(to_backends=True).after_val_iter(runner, 0, {'inputs': [packed(image)]}, [sample])
    ((tag, picture, step),) = seen
    assert (tag, step) == ('val/0000_ship', 7)
    assert np.array_equal(picture[..., ::-1], cv2.imread(str(tmp_path / 'pictures/val/0000_ship.png')))
    assert not (tmp_path / 'vis_image').exists()


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [(dict(max_pictures=-2), 'max_pictures must be -1'), (dict(suffix='.gif'), "suffix must be '.png' or '.jpg'")],
)
def test_wrong_arguments_are_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        DetectionPicturesHook(**arguments)


def test_samples_without_a_file_are_named_by_their_id():
    _, sample = make_sample()
    assert sample_name(sample) == '7'
