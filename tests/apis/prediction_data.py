"""A hand-made detector: it finds the bright rectangles of an image, turned as they are, and no training is needed."""

from types import SimpleNamespace

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmrotate_plugin.apis.image_reader import ImageReader
from mmrotate_plugin.apis.inference import Detections, Detector
from mmrotate_plugin.utils.errors import ImageError

CLASSES = ['ship', 'small plane']
BOXES = [(60.0, 40.0, 40.0, 16.0, 0.5), (120.0, 70.0, 30.0, 20.0, -0.7)]  # of `scene`
CFG = Config(dict(model=dict(test_cfg=dict(nms=dict(type='nms_rotated', iou_threshold=0.1)))))


class Bright(Detector):
    """Finds what is brighter than 200; long rectangles are ships, with the score 0.9, others planes, with 0.6."""

    def __init__(self, std=False):  # without a config, a network or weights
        self.model = torch.nn.Identity()
        self.model.cfg = CFG
        self.classes, self.colours, self.path, self.std = CLASSES, [(0, 0, 255), (0, 255, 0)], 'none.pth', std
        self.read = ImageReader()
        self.seen = 0

    def __call__(self, image, *, score_thr=0.0):
        self.seen += 1
        if image.shape[0] < 8:
            raise ImageError('too low')
        grey = image.reshape(*image.shape[:2], -1).max(2)
        outlines, _ = cv2.findContours(
            (grey > max(200, 0.8 * grey.max())).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        rows = []
        for outline in outlines:
            (x, y), (w, h), degrees = cv2.minAreaRect(outline)
            w, h, degrees = (w, h, degrees) if w >= h else (h, w, degrees - 90)
            label = int(w < 2 * h)
            rows.append((x + 0.5, y + 0.5, w + 1, h + 1, np.deg2rad(degrees), label, 0.6 if label else 0.9))
        rows = np.array(sorted(rows, key=lambda row: -row[-1]), np.float32).reshape(-1, 7)
        rows = rows[rows[:, 6] >= score_thr]
        std = (rows[:, :5] / 100, rows[:, 6] / 10) if self.std else (None, None)
        return Detections(rows[:, :5], rows[:, 5].astype(np.int64), rows[:, 6], *std)


def scene(boxes=BOXES, size=(100, 160)):
    """Bright boxes on a dark image."""
    image = np.full((*size, 3), 40, np.uint8)
    for x, y, w, h, angle in boxes:
        corners = cv2.boxPoints(((x - 0.5, y - 0.5), (w - 1, h - 1), np.rad2deg(angle)))
        cv2.fillPoly(image, [(corners * 16).round().astype(np.int32)], (250, 250, 250), shift=4)
    return image


def write_images(folder, names):
    """One scene for each name; returns the folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix.lower(), scene())[1].tobytes())
    return folder


def write_video(path, frames=6, rate=10, code='MJPG'):
    """A clip in which the boxes move by two pixels per frame."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, (160, 100))
    for i in range(frames):
        writer.write(scene([(x + 2 * i, *rest) for x, *rest in BOXES]))
    writer.release()
    return path


class Mean(torch.nn.Module):
    """A network whose answer depends on padding, as group norms do: the mean of all inputs of an image is the score."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def test_step(self, data):
        sizes = torch.tensor([image.shape[1:] for image in data['inputs']]).amax(0).tolist()
        batch = torch.stack([
            torch.nn.functional.pad(image.float(), (0, sizes[1] - image.shape[2], 0, sizes[0] - image.shape[1]))
            for image in data['inputs']
        ])  # fmt: skip
        self.batches.append(tuple(batch.shape))
        scores = batch.mean((1, 2, 3)) / 255
        boxes = torch.tensor([[10.0, 10, 8, 4, 0.1]])
        return [
            SimpleNamespace(
                metainfo={},
                pred_instances=InstanceData(bboxes=boxes, labels=torch.zeros(1).long(), scores=score[None]),
                get=lambda _key, default=None: default,
            )
            for score in scores
        ]
