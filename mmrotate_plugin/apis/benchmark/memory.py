"""Measure memory: what a training step needs at its peak, and what the forward pass keeps for the backward pass."""

from pathlib import Path

import torch
from torch import Tensor, nn

from .contestants import Contestant
from .likeness import loss_of, maps
from .timing import clock, training_step


def first_build_and_memory(contestant: Contestant, x: Tensor | None) -> dict[str, float]:
    """Measure the seconds of the first build in this process, and the bytes that a training step needs.

    Args:
        contestant: To be built.
        x: (B, 3, H, W) images on the device to use; None to build only.

    Returns:
        'first' in seconds; with images also 'peak', the most memory during the second and third step of another such
        network (the first step makes gradients and momenta) above what was in use before it was built, and 'kept', see
        `kept_for_backward`. On CPUs 'peak' is resident memory (Linux), on GPUs what torch has allocated.
    """
    found: dict[str, float] = {'first': clock(contestant.build)}
    if x is None:
        return found
    small = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU()).to(x.device)
    training_step(small, x[..., :9, :9])()  # loads what torch loads at the first use: 100 MiB of libraries
    on_gpu = x.is_cuda
    before = torch.cuda.memory_allocated(x.device) if on_gpu else resident('VmRSS')
    net = contestant.build().to(x.device)
    net.train()
    step = training_step(net, x)
    step()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(x.device)
    else:
        Path('/proc/self/clear_refs').write_text('5')  # resets VmHWM, see proc(5)
    step()
    step()
    found['peak'] = (torch.cuda.max_memory_allocated(x.device) if on_gpu else resident('VmHWM')) - before
    found['kept'] = kept_for_backward(net, x)
    return found


def kept_for_backward(net: nn.Module, x: Tensor) -> int:
    """Count the bytes that the forward pass keeps for the backward pass, without parameters, each storage once."""
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, int] = {}

    def note(y: Tensor) -> Tensor:
        kept[y.untyped_storage().data_ptr()] = y.untyped_storage().nbytes()
        return y.detach()  # the tensor itself would keep its own graph alive

    with torch.autograd.graph.saved_tensors_hooks(note, lambda y: y):
        loss = loss_of(maps(net, x, variances=True))  # the graph lives until here, so no address is given twice
    found = sum(size for place, size in kept.items() if place not in parameters)
    del loss
    return found


def resident(what: str) -> int:
    """Return the bytes of memory that this process has ('VmRSS') or has had at most ('VmHWM')."""
    lines = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
    return int(lines[what].split()[0]) * 1024
