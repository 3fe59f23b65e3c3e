"""Describe the machine and the versions that a benchmark ran on, and what may have disturbed it."""

import os
import platform
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the device, the processor and its load."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(':')[1].strip() for line in lines if line.startswith('model name')]
    return {
        'device': device.type,
        'gpu': torch.cuda.get_device_name(device) if device.type == 'cuda' else None,
        'cpu': models[0] if models else platform.machine(),
        'cores': os.cpu_count(),
        'load': os.getloadavg()[0],
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter."""
    found = {'python': platform.python_version()}
    for name in ('mmrotate_plugin', 'torch', 'mmcv', 'mmengine', 'mmdet', 'mmrotate', 'numpy'):
        try:
            found[name] = import_module(name).__version__
        except ModuleNotFoundError:
            continue
    return {**found, 'e2cnn': metadata.version('e2cnn')}


def disturbances(device: torch.device) -> list[str]:
    """Warn of what makes times vary; ratios of pairs stay right, with a larger spread."""
    found = []
    if device.type == 'cpu' and os.environ.get('OMP_WAIT_POLICY', '').upper() != 'PASSIVE':
        found.append('warning: OMP_WAIT_POLICY is not PASSIVE; small layers take longer while other programs run')
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores:
        found.append(f'warning: the load average is {load:.1f} on {cores} cores; expect a large spread')
    return found
