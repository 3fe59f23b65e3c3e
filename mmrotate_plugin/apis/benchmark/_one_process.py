"""Measure the imports, the first build and the memory of one network; a script for a process of its own.

Imports stand in `measure`, where they are timed. `new_processes` runs this file; nothing imports it.
"""

import argparse
import json
import time
from importlib import import_module


def parse() -> argparse.Namespace:
    """Parse what `new_processes.command` writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--network')
    parser.add_argument('--device')
    for name in ('depth', 'base-channels', 'batch-size', 'size', 'threads'):
        parser.add_argument(f'--{name}', type=int)
    return parser.parse_args()


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Measure seconds and bytes; size 0 leaves memory out."""
    import torch

    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    import_module('e2cnn')
    middle = time.perf_counter()
    from mmrotate_plugin.apis.benchmark.contestants import find
    from mmrotate_plugin.apis.benchmark.memory import first_build_and_memory
    from mmrotate_plugin.testing import full_precision

    contestant = find(args.network, args.depth, args.base_channels)
    if isinstance(contestant, str):
        raise SystemExit(f'{args.network}: {contestant}')
    imports = {'import_e2cnn': middle - start, 'import': time.perf_counter() - middle}
    torch.manual_seed(0)
    x = torch.randn(args.batch_size, 3, args.size, args.size, device=args.device) if args.size else None
    with full_precision():
        return {**imports, **first_build_and_memory(contestant, x)}


if __name__ == '__main__':
    print(json.dumps(measure(parse())))  # noqa: T201
