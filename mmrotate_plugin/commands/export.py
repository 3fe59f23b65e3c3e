"""Export a detector to run without this package, and compare the exports with it."""

import argparse
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS

from ..apis.checkpoint import describe_model, read_checkpoint
from ..apis.config import load_config
from ..apis.image_reader import scene_image
from ..apis.inference import Detector
from ..apis.runner import writable_folder
from ..datasets.utils.image_headers import ImageKindError
from ..engine.checks.input_images import check_image
from ..export import Exported, Unsupported, export_onnx, verification, writers
from ..export.onnx_export import require
from ..utils.atomic_files import write_json, write_whole
from ..utils.errors import CheckFailed, ImageError, UsageError

FORMATS = ('config', 'onnx', 'safetensors')
SCENE = 513  # pixels, if there is no other image


def export(args: argparse.Namespace) -> None:
    """Export, compare and print; write files if every comparison passes.

    Raises:
        CheckFailed: If an export differs from the detector.
    """
    try:
        require(*(['onnx', 'onnxruntime'] if 'onnx' in args.formats else []))
        require(*(['safetensors'] if 'safetensors' in args.formats else []))
    except Unsupported as error:
        raise UsageError(f'{error}, or leave the format out by --formats {"|".join(FORMATS)}') from error
    out = writable_folder(args.out, '--out')
    for name, given in ((writers.CONFIG, args.config), (writers.CHECKPOINT, args.checkpoint)):
        if (out / name).exists() and os.path.exists(given) and os.path.samefile(out / name, given):
            raise UsageError(f"--out '{out}' is where '{given}' is, which would be replaced; give another folder")
    cfg = load_config(args.config, args.cfg_options)
    checkpoint = read_checkpoint(args.checkpoint)
    detector = Detector(cfg, checkpoint, args.checkpoint, device=torch.device('cpu'))
    image, source = read_image(args.img, cfg, detector)
    meta = writers.dataset_meta(cfg, checkpoint)
    print(f'{describe_model(detector.model)}, compared on {source}, {image.shape[1]} x {image.shape[0]} pixels')

    temporary = Path(tempfile.mkdtemp(dir=out, prefix='.export-'))
    report: dict[str, Any] = {key: getattr(args, key) for key in ('config', 'checkpoint', 'tol')}
    report |= {'image': source, 'torch': torch.__version__}
    wrong: list[str] = []
    try:
        if 'config' in args.formats:
            wrong += as_config(temporary, detector, cfg, meta, image, source, args.tol, report)
        if 'onnx' in args.formats:
            wrong += as_onnx(temporary, detector, image, args, report)
        if 'safetensors' in args.formats:
            count = writers.write_safetensors(temporary, detector, meta)
            print(f'{writers.SAFETENSORS}: {count} weights, read again')
        if not wrong:
            write_json(temporary / writers.REPORT, report)
            for file in sorted(temporary.iterdir()):
                os.replace(file, out / file.name)
            print(f'exported to {out}')
    except Unsupported as error:
        raise UsageError(f'cannot export: {error}') from error
    except OSError as error:
        raise UsageError(f"--out '{out}' cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if wrong:
        raise CheckFailed(*(f'check failed, nothing was written: {text}' for text in wrong))


def as_config(
    folder: Path,
    detector: Detector,
    cfg: Config,
    meta: dict[str, Any],
    image: np.ndarray,
    source: str,
    tolerance: float,
    report: dict[str, Any],
) -> list[str]:
    """Write config and checkpoint; compare them with the detector in a process without this package."""

    notes = writers.write_plain(folder, detector, cfg, meta, image)
    array = folder / '.image.npy'
    if not Path(source).is_file():  # a scene; a file is read there by the exported pipeline
        np.save(array, image)
    try:
        given = array if array.exists() else Path(source)
        (there,) = verification.predict_without_us([(folder / writers.CONFIG, folder / writers.CHECKPOINT, given)])
    finally:
        array.unlink(missing_ok=True)
    difference = verification.compare(
        verification.predict_here(detector, image), there, max(image.shape[:2]), tolerance
    )
    report['plain'] = {'parts': there.parts, 'notes': notes, 'difference': asdict(difference)}
    print(
        f'{writers.CONFIG}, {writers.CHECKPOINT}: {", ".join(there.parts)}; without mmrotate_plugin and e2cnn, '
        f'maps differ by {difference.maps:.2g} of their largest value, {difference.count} detections by '
        f'{difference.boxes:.2g} of the longest side (angles: radians) and {difference.scores:.2g} in scores'
    )
    for note in notes:
        print(f'note: {note}')
    if not difference.count:
        print('note: no detections on this image, so only maps were compared; --img names another')
    alone = f'{difference.alone} of {difference.count} detections have no partner within --tol {tolerance:g}'
    if difference.alone and difference.passes:
        print(f'note: {alone}; suppression and thresholds decide between values that are equal up to round-off')
    return [] if difference.passes else [f'the plain detector differs: maps by {difference.maps:.2g}, {alone}']


def as_onnx(
    folder: Path, detector: Detector, image: np.ndarray, args: argparse.Namespace, report: dict[str, Any]
) -> list[str]:
    """Write the ONNX file and compare it with the detector."""
    x = writers.prepared(detector, image)
    made = export_onnx(detector.model, x, heads=args.onnx == 'heads', dynamic=args.dynamic, opset=args.opset)
    write_whole(folder / writers.ONNX, made.data)
    preprocessor = detector.model.data_preprocessor
    report['onnx'] = {
        'input': {
            'image': list(x.shape),
            **{key: getattr(preprocessor, key).flatten() for key in ('mean', 'std') if hasattr(preprocessor, key)},
            'bgr_to_rgb': bool(getattr(preprocessor, '_channel_conversion', False)),
        },
        'dynamic': args.dynamic,
        'opset': args.opset,
        'checked_sizes': made.sizes,
        'outputs': {
            name: {'shape': shape, 'difference': difference}
            for name, shape, difference in zip(made.names, made.shapes, made.differences, strict=True)
        },
    }
    sizes = ' and '.join(f'{b} x {w} x {h}' for b, h, w in made.sizes)
    print(f'{writers.ONNX}: {len(made.names)} outputs, opset {args.opset}; onnxruntime differs by '
          f'{made.difference:.2g} (of the largest value of an output) for {sizes} pixels')  # fmt: skip
    print(outputs_table(made))
    roi_head = getattr(detector.model, 'roi_head', None)
    if roi_head is not None:
        print(f'note: ONNX ends before the regions: {type(roi_head).__name__}, with its RoI align, stays in torch')
    if made.difference <= args.tol:
        return []
    return [f'onnxruntime differs from torch by {made.difference:.2g}, more than --tol {args.tol:g}']


def outputs_table(made: Exported) -> str:
    """List the outputs with their shapes and differences, one per line."""
    rows = zip(made.names, made.shapes, made.differences, strict=True)
    return '\n'.join(f'  {name}  {" x ".join(map(str, shape))}  {difference:.2g}' for name, shape, difference in rows)


def read_image(path: str | None, cfg: Config, detector: Detector) -> tuple[np.ndarray, str]:
    """Read the image to compare on, (H, W) or (H, W, C), and say where it is from.

    Raises:
        UsageError: If the given file cannot be read, or the detector cannot take its channels.
    """
    option = 'the test data' if path is None else '--img'
    try:
        if path is not None:
            image = detector.read(Path(path))
            check_image(detector.model, image, f"'{path}'")
            return image, path
        try:
            path = str(DATASETS.build(cfg.test_dataloader.dataset).get_data_info(0)['img_path'])
            image = detector.read.loader({'img_path': path})['img']
        except ImageKindError as error:
            raise ImageError(str(error)) from error
        except Exception:  # a data set that is not here, which can fail in any way
            return scene_image(detector.model, SCENE), 'a synthetic scene (the test data cannot be read)'
        check_image(detector.model, image, f"'{path}'")
        return image, path
    except ImageError as error:
        raise UsageError(f'{option}: {error}') from error
