"""Merge detections on patches into a submission of whole images, and score them."""

import argparse

from ..evaluation import merged_predictions
from ..utils.atomic_files import write_json
from ..utils.errors import UsageError


def merge_predictions(args: argparse.Namespace) -> None:
    """Merge, and print the counts and the scores.

    Raises:
        InputError: If a file cannot be read or written, or a name is wrong.
    """
    if args.labels is None:
        for name in ('from_format', 'split', 'angle'):
            if getattr(args, name) is not None:
                raise UsageError(f'--{name.partition("_")[0]} is about --labels, which is missing')
    try:
        done = merged_predictions.merge_predictions(
            args.predictions,
            args.out,
            classes=args.classes,
            iou_thr=args.iou_thr,
            labels=args.labels,
            from_format=args.from_format,
            split=args.split,
            iou_thrs=args.iou_thrs,
            eval_mode=args.eval_mode,
            angle=args.angle,
        )
    except (ValueError, FileNotFoundError) as error:  # of the labels, as a data set says it
        raise UsageError(str(error)) from error
    print(
        f'{done.file}: {done.after} detections on {done.images} images, merged from {done.before} on {done.patches} '
        'patches'
    )
    for line in done.notes:
        print(f'note: {line}')
    if done.scores:
        print(', '.join(f'{name} {value:.4f}' for name, value in done.scores.items()))
    if args.out_json is not None:
        try:
            write_json(args.out_json, {**vars(done), 'file': str(done.file)})
        except OSError as error:
            raise UsageError(f"--out-json '{args.out_json}' cannot be written: {error.strerror}") from error
