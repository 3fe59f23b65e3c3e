#!/usr/bin/env python
"""Fit the variance gains of a detector or its backbone: python tools/calibrate_uncertainty.py CONFIG CHECKPOINT ..."""

import argparse
import io
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import Tensor, nn

    from mmrotate_plugin.adf.calibration import Calibration
    from mmrotate_plugin.apis.inference import Detector
    from mmrotate_plugin.models.detectors.uncertain_detector import UncertainDetector
    from mmrotate_plugin.models.uncertainty.detector_calibration import DetectorCalibration

READS = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
EPILOG = """
Backbone, neck, head and boxes are fitted where the config's model is an UncertainDetector, or with --detector; else
the backbone alone. The output holds the weights of CHECKPOINT and the gains, for an UncertainDetector around the
detector, or for ADFResNet in place of the config's ResNet; optimizer states are left out. Its report, FILE.json, tells
the standard deviations of each layer over those of Monte Carlo, before and after, and those of the backbone's layers or
of the boxes also on images that the fit did not see. All images are cut to one size, around their centres.
"""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Fit variance gains for a detector or its backbone by Monte Carlo over the noise of its images.',
        epilog=EPILOG,
    )
    parser.add_argument('config', help='config file of an UncertainDetector or of any other detector')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--noise-std', type=float, required=True, help='standard deviation of the noise, grey levels of 0 to 255'
    )
    parser.add_argument('--out', required=True, help='checkpoint to write, .pth; the report goes beside it, .json')
    parser.add_argument(
        '--detector', action='store_true', help='fit neck, head and boxes too, as for an UncertainDetector'
    )
    parser.add_argument(
        '--min-score', type=float, help='detections that count in the fit of boxes, from this score on (default 0.1)'
    )
    parser.add_argument('--figure', help='draw the report too, into this .png file')
    parser.add_argument('--images', help="folder of images (default: the config's val data set)")
    parser.add_argument('--num-images', type=int, default=8, help='images of the fit (default 8)')
    parser.add_argument('--held-out', type=int, default=4, help='further images, to check the gains on (default 4)')
    parser.add_argument('--num-samples', type=int, default=128, help='passes of Monte Carlo (default 128)')
    parser.add_argument('--size', type=int, help='cut images to at most this many pixels a side (default: all)')
    parser.add_argument('--seed', type=int, default=0, help='of the noise (default 0)')
    parser.add_argument('--device', help='cpu, cuda:0, ... (default: a GPU if there is one)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='change the config, see train.py')
    parser.add_argument(
        '--unsafe-checkpoint', action='store_true', help='take any pickle for a checkpoint, and run what it says'
    )
    args = parser.parse_args(argv)
    if not (math.isfinite(args.noise_std) and args.noise_std > 0):
        parser.error(f'--noise-std must be a number above 0, in grey levels, not {args.noise_std}')
    for name, least in (('num_images', 1), ('held_out', 0), ('num_samples', 8), ('size', 33)):
        if getattr(args, name) is not None and getattr(args, name) < least:
            parser.error(f'--{name.replace("_", "-")} must be {least} or more, not {getattr(args, name)}')
    if args.min_score is not None and not 0 <= args.min_score < 1:
        parser.error(f'--min-score must be 0 or more and less than 1, not {args.min_score}')
    if not args.out.endswith('.pth'):
        parser.error(f"--out must end with .pth, not '{args.out}'")
    if args.figure and not args.figure.endswith('.png'):
        parser.error(f"--figure must end with .png, not '{args.figure}'")
    return args


def calibrate(args: argparse.Namespace) -> None:
    import torch

    from mmrotate_plugin.apis.checkpoint import read_checkpoint
    from mmrotate_plugin.apis.config import load_config
    from mmrotate_plugin.apis.inference import Detector, select_device
    from mmrotate_plugin.apis.runner import writable_folder
    from mmrotate_plugin.apis.uncertain_config import add_uncertainty, is_uncertain
    from mmrotate_plugin.utils.atomic_files import write_json, write_whole
    from mmrotate_plugin.utils.errors import UsageError
    from mmrotate_plugin.visualization.plots.calibration import draw_calibration

    out = Path(args.out)
    if out.is_dir():
        raise UsageError(f"--out '{out}' is a folder; give the name of a file")
    if out.exists() and Path(args.checkpoint).exists() and out.samefile(args.checkpoint):
        raise UsageError(f"--out '{out}' is the checkpoint itself; give another name")
    writable_folder(out.parent, '--out')
    device = select_device(args.device)
    cfg = load_config(args.config, args.cfg_options)
    configured = is_uncertain(cfg.model)
    whole = configured or args.detector
    if not whole and args.min_score is not None:
        raise UsageError(f'--min-score {args.min_score} is for boxes: add --detector to fit them')
    if whole and not configured:
        add_uncertainty(cfg, noise_std=args.noise_std)
    checkpoint = read_checkpoint(args.checkpoint)
    checkpoint['state_dict'] = without_gains(checkpoint['state_dict'])
    detector = Detector(cfg, checkpoint, args.checkpoint, device=device)
    if getattr(detector.model, 'backbone', None) is None:
        raise UsageError(f"config '{args.config}' has no backbone: {type(detector.model).__name__} cannot be fitted")
    images = crop(load_images(args, cfg, detector), args.size).to(device)
    print(f'{len(images)} images of {images.shape[3]} x {images.shape[2]} pixels, {args.held_out} of them held out')
    report = (fit_detector if whole else fit_backbone)(detector.model, images, args)
    print(report)

    state = detector.model.state_dict()
    result = OrderedDict((key, state[key].cpu()) for key in state)
    result._metadata = getattr(state, '_metadata', {})  # notes the group
    file = io.BytesIO()
    torch.save({'meta': checkpoint['meta'], 'state_dict': result}, file)
    facts = {'config': args.config, 'checkpoint': args.checkpoint, 'noise_std': args.noise_std, **report.as_dict()}
    try:
        write_whole(out, file.getvalue())
        path = write_json(out.with_suffix('.json'), facts)
    except OSError as error:
        raise UsageError(f"--out '{out}' cannot be written: {error.strerror or error}") from error
    if args.figure:
        try:
            write_whole(args.figure, draw_calibration(report))
        except OSError as error:
            raise UsageError(f"--figure '{args.figure}' cannot be written: {error.strerror or error}") from error
    layers = report.layers.layers if whole else report.layers
    gains = sum(layer.gains is not None for layer in layers)
    print(f'{out}: {len(result)} weights, of {gains} modules with gains\n{path}: the table above')
    if whole and not configured:
        print("note: only a mmrotate_plugin.UncertainDetector around the config's model takes up the gains")
    elif whole and detector.model.method != 'propagated':
        print(f"note: the config's method is '{detector.model.method}'; only 'propagated' uses the gains")
    elif not whole and type(detector.model.backbone).__name__ != 'ADFResNet':
        print("note: only a mmrotate_plugin.ADFResNet in place of the config's backbone takes up the gains")


def fit_backbone(model: 'nn.Module', images: 'Tensor', args: argparse.Namespace) -> 'Calibration':
    from mmrotate_plugin import adf
    from mmrotate_plugin.adf.calibration import calibrate as fit
    from mmrotate_plugin.models.uncertainty.image_noise import normalised_variance
    from mmrotate_plugin.utils.errors import UsageError

    count, backbone = args.num_images, model.backbone
    propagate, plain = runners(backbone)
    try:
        with propagate:
            return fit(
                backbone,
                images[:count],
                normalised_variance(args.noise_std, model.data_preprocessor),
                held_out=images[count:] if len(images) > count else None,
                num_samples=args.num_samples,
                share=order_of(backbone),
                plain=plain,
                seed=args.seed,
                progress=True,
            )
    except adf.NoMomentRule as error:
        raise UsageError(f'the backbone, {type(backbone).__name__}, cannot propagate a variance: {error}') from error


def fit_detector(model: 'UncertainDetector', images: 'Tensor', args: argparse.Namespace) -> 'DetectorCalibration':
    """Backbone, neck, head and boxes; images are taken as whole ones, wherever they were cut."""
    from mmdet.structures import DetDataSample

    from mmrotate_plugin import adf
    from mmrotate_plugin.models.uncertainty.detector_calibration import TooFewDetections, calibrate_detector
    from mmrotate_plugin.models.uncertainty.head_trace import UnsupportedDetector
    from mmrotate_plugin.models.uncertainty.image_noise import normalised_variance
    from mmrotate_plugin.utils.errors import UsageError

    size = tuple(images.shape[-2:])
    meta = {'img_shape': size, 'ori_shape': size, 'pad_shape': size, 'batch_input_shape': size}
    meta |= {'scale_factor': (1.0, 1.0), 'flip': False}
    try:
        return calibrate_detector(
            model,
            images,
            [DetDataSample(metainfo={**meta, 'img_id': i}) for i in range(len(images))],
            normalised_variance(args.noise_std, model.data_preprocessor),
            num_held_out=args.held_out,
            num_samples=args.num_samples,
            share=order_of(model.backbone),
            min_score=0.1 if args.min_score is None else args.min_score,
            seed=args.seed,
            progress=True,
        )
    except (adf.NoMomentRule, UnsupportedDetector, TooFewDetections) as error:
        raise UsageError(f'the detector cannot be calibrated: {error}') from error


def order_of(backbone: 'nn.Module') -> int:
    """Of an equivariant backbone's group: so many orientations share a gain."""
    from mmrotate_plugin.equivariant.fields import group_order

    group = getattr(backbone, 'group', None)
    return group_order(group) if isinstance(group, str) else 1


def without_gains(state: Mapping[str, Any]) -> 'OrderedDict[str, Any]':
    """The weights alone, if the checkpoint is calibrated already; errors fitted to old deviations go too."""
    from mmrotate_plugin.adf.gains import is_gain
    from mmrotate_plugin.models.detectors.uncertain_detector import ERROR, GAIN

    kept = OrderedDict(
        (key, value) for key, value in state.items() if not is_gain(key) and key.rpartition('.')[2] not in (ERROR, GAIN)
    )
    kept._metadata = getattr(state, '_metadata', {})
    return kept


def runners(backbone: 'nn.Module') -> tuple[AbstractContextManager[None], Callable[['Tensor'], Any] | None]:
    """Within the first, the backbone maps a Gaussian to Gaussians; the second is the plain network, None for itself."""
    from mmrotate_plugin.models import ADFResNet, ResNet

    if not isinstance(backbone, ADFResNet):
        return nullcontext(), None

    @contextmanager
    def propagating() -> Iterator[None]:
        chosen = backbone.variance, backbone.output
        backbone.variance, backbone.output = 'diagonal' if chosen[0] == 'none' else chosen[0], 'gaussian'
        try:
            yield
        finally:
            backbone.variance, backbone.output = chosen

    return propagating(), partial(ResNet.forward, backbone)


def load_images(args: argparse.Namespace, cfg: 'Config', detector: 'Detector') -> list['Tensor']:
    """As the backbone gets them, (C, H, W) each: some, evenly spread, of the folder or of the data set.

    Raises:
        UsageError: If there are too few, or they cannot be read.
    """
    from mmengine.registry import DATASETS

    from mmrotate_plugin.engine.checks import before_run
    from mmrotate_plugin.engine.checks.input_images import check_first_image, check_image
    from mmrotate_plugin.utils.errors import ImageError, UsageError

    wanted = args.num_images + args.held_out
    if args.images:
        folder = Path(args.images)
        if not folder.is_dir():
            raise UsageError(f"--images '{folder}' is no folder")
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in READS)
        source, where = len(files), f"--images '{folder}'"

        def load(i: int) -> Any:
            image = detector.read(files[i])
            check_image(detector.model, image, f"'{files[i]}'")
            return detector.pipeline({'img': image, 'img_id': 0})
    else:
        if cfg.get('val_dataloader') is None:
            raise UsageError(f"config '{args.config}' has no val_dataloader: name a folder by --images")
        try:
            dataset = DATASETS.build(cfg.val_dataloader.dataset)
        except (KeyError, ValueError, IndexError, OSError) as error:
            raise UsageError(
                f'the data set of val_dataloader cannot be read: {error}; name a folder by --images instead'
            ) from error
        before_run.check_heads(detector.model, dataset, 'val_dataloader')
        check_first_image(detector.model, dataset)
        source, where, load = len(dataset), 'the data set of val_dataloader', dataset.__getitem__
    if source < wanted:
        raise UsageError(
            f'{where} has {source} images, but --num-images {args.num_images} and --held-out {args.held_out} ask for '
            f'{wanted}'
        )
    # every other one is held out, so that neighbours (crops of one scene) are no reason for both to be alike
    chosen = [i * source // wanted for i in range(wanted)]
    held_out = {round((j + 0.5) * wanted / args.held_out - 0.5) for j in range(args.held_out)}
    order = sorted(range(wanted), key=lambda i: i in held_out)
    try:
        return [prepare(load(chosen[i]), detector.model.data_preprocessor) for i in order]
    except (ImageError, OSError) as error:
        raise UsageError(f'{where}: {error}') from error


def prepare(sample: Mapping[str, Any], preprocessor: 'nn.Module') -> 'Tensor':
    """The normalised image, without the padding that would have no noise."""
    height, width = sample['inputs'].shape[-2:]
    batch = {'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]}
    return preprocessor(batch, False)['inputs'][0, :, :height, :width]


def crop(images: list['Tensor'], size: int | None) -> 'Tensor':
    """One size for all, around the centre: (B, C, H, W)."""
    import torch

    sides = [min(min(image.shape[d] for image in images), size or 10**9) for d in (1, 2)]
    cut = []
    for image in images:
        top, left = ((image.shape[d + 1] - sides[d]) // 2 for d in (0, 1))
        cut.append(image[:, top : top + sides[0], left : left + sides[1]])
    return torch.stack(cut)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mmrotate_plugin.apis.run_command import run

    return run(calibrate, args)


if __name__ == '__main__':
    sys.exit(main())
