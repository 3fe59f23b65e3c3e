"""Fit the variance gains of a detector or of its backbone."""

import argparse
from pathlib import Path
from typing import Any

from torch import nn

from ..adf.calibration import Calibration
from ..apis.checkpoint import read_checkpoint, write_checkpoint
from ..apis.config import load_config
from ..apis.inference import Detector, select_device
from ..apis.runner import writable_folder
from ..apis.uncertain_config import add_uncertainty, is_uncertain
from ..apis.uncertainty_calibration import MIN_SCORE, crop, fit_backbone, fit_detector, load_images, without_gains
from ..models.uncertainty.detector_calibration import DetectorCalibration
from ..utils.atomic_files import write_json, write_whole
from ..utils.errors import UsageError
from ..visualization.plots.calibration import draw_calibration


def calibrate(args: argparse.Namespace) -> None:
    """Fit, print the report, and write the checkpoint with its gains."""
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
    some = {'num_images': args.num_images, 'held_out': args.held_out}
    images = crop(load_images(cfg, detector, args.config, folder=args.images, **some), args.size).to(device)
    print(f'{len(images)} images of {images.shape[3]} x {images.shape[2]} pixels, {args.held_out} of them held out')
    fit = {'held_out': args.held_out, 'num_samples': args.num_samples, 'seed': args.seed}
    report: Calibration | DetectorCalibration
    if whole:
        min_score = MIN_SCORE if args.min_score is None else args.min_score
        report = fit_detector(detector.model, images, args.noise_std, min_score=min_score, **fit)
    else:
        report = fit_backbone(detector.model, images, args.noise_std, **fit)
    print(report)

    facts = {'config': args.config, 'checkpoint': args.checkpoint, 'noise_std': args.noise_std, **report.as_dict()}
    count = write(out, detector.model, checkpoint['meta'], facts)
    if args.figure:
        try:
            write_whole(args.figure, draw_calibration(report))
        except OSError as error:
            raise UsageError(f"--figure '{args.figure}' cannot be written: {error.strerror or error}") from error
    layers = report.layers if isinstance(report, Calibration) else report.layers.layers
    gains = sum(layer.gains is not None for layer in layers)
    print(f'{out}: {count} weights, of {gains} modules with gains\n{out.with_suffix(".json")}: the table above')
    if whole and not configured:
        print("note: only a mmrotate_plugin.UncertainDetector around the config's model uses the gains")
    elif whole and detector.model.method != 'propagated':
        print(f"note: the config's method is '{detector.model.method}'; only 'propagated' uses the gains")
    elif not whole and type(detector.model.backbone).__name__ != 'ADFResNet':
        print("note: only a mmrotate_plugin.ADFResNet in place of the config's backbone uses the gains")


def write(out: Path, model: nn.Module, meta: dict[str, Any], facts: dict[str, Any]) -> int:
    """Write the checkpoint, and the report next to it; return the number of weights.

    Raises:
        UsageError: If they cannot be written.
    """
    state = model.state_dict()
    try:
        write_checkpoint(out, state, meta)
        write_json(out.with_suffix('.json'), facts)
    except OSError as error:
        raise UsageError(f"--out '{out}' cannot be written: {error.strerror or error}") from error
    return len(state)
