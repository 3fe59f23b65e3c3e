"""Predict as a user of the exported files would: a program of its own, run by `verification.predict_without_us`.

Its arguments are CONFIG CHECKPOINT IMAGE OUT.npz, any number of times; an IMAGE.npy holds an array. mmrotate_plugin and
e2cnn are out of reach.
"""

import logging
import sys

import numpy as np


def predict(config: str, checkpoint: str, image: str, out: str) -> None:
    import torch
    from mmdet.apis import inference_detector, init_detector

    model = init_detector(config, checkpoint, device='cpu')
    own, stored = model.state_dict(), torch.load(checkpoint, map_location='cpu')['state_dict']
    wrong = sorted(set(own) ^ set(stored))
    wrong += [key for key in own if key in stored and own[key].shape != stored[key].shape]
    maps = []
    last = model.neck if getattr(model, 'neck', None) is not None else model.backbone
    last.register_forward_hook(lambda module, inputs, outputs: maps.append(outputs))  # noqa: ARG005
    given, pipeline = image, None
    if image.endswith('.npy'):
        from mmcv.transforms import Compose
        from mmdet.utils import get_test_pipeline_cfg

        given = np.load(image)
        steps = get_test_pipeline_cfg(model.cfg.copy())
        steps = [step for step in steps if 'LoadImage' not in str(step['type'])]
        pipeline = Compose([{'type': 'mmdet.LoadImageFromNDArray'}, *steps])
    found = inference_detector(model, given, test_pipeline=pipeline).pred_instances
    boxes = getattr(found.bboxes, 'tensor', found.bboxes)
    parts = [type(getattr(model, name)) for name in ('backbone', 'neck') if getattr(model, name, None) is not None]
    np.savez(
        out,
        boxes=boxes.numpy(),
        scores=found.scores.numpy(),
        labels=found.labels.numpy(),
        wrong=np.array(wrong, str),
        parts=np.array([f'{kind.__module__}.{kind.__name__}' for kind in parts], str),
        classes=np.array(model.dataset_meta['classes'], str),
        **{f'level{i}': level.numpy() for i, level in enumerate(maps[0])},
    )


def main(*arguments: str) -> None:
    for blocked in ('mmrotate_plugin', 'e2cnn'):
        sys.modules[blocked] = None  # importing it, or a part of it, raises ModuleNotFoundError
    from mmengine.logging import MMLogger

    MMLogger.get_instance('mmengine').setLevel(logging.ERROR)
    for i in range(0, len(arguments), 4):
        predict(*arguments[i : i + 4])


if __name__ == '__main__':
    main(*sys.argv[1:])
