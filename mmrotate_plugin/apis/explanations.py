"""Explain an exception from deep inside a run to the user, where its cause is known.

Refusals of this package raise a message that names the argument; between the line that raises and the tool there may be
a runner, a worker process, a layer of the hosts. `explain` tells them, and what the hosts raise about the config (see
`host_errors`), from bugs: only the latter deserve a traceback.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from traceback import extract_tb
from typing import Any

from torch import Tensor, nn

from ..engine.checks import compiled_operators
from .host_errors import fault_of_config, file_error, no_memory

PACKAGE = __name__.partition('.')[0]
REFUSALS = (ValueError, TypeError, RuntimeError, LookupError, OSError)  # NotImplementedError is a RuntimeError
NO_OPERATOR = re.compile(rf'(\w+): {compiled_operators.NOT_FOUND} (\S+) not found')
SUFFIX = re.compile(r'(_sort_vertices)?(_forward|_backward)?(_impl)?(_forward|_backward)?$')
SIZES_DIFFER = re.compile(r'Sizes of tensors must match|The size of tensor a \(\d+\) must match the size of tensor b')


def explain(error: BaseException) -> str | None:
    """Return one line for the user, or None if nothing is known: then it may be a bug.

    Args:
        error: As it was caught, with its traceback.
    """
    for known in (_operator, _geometric, _sizes, _views, no_memory, _refusal, file_error, fault_of_config):
        text = known(error, str(error))
        if text is not None:
            return text
    return None


def _operator(error: BaseException, text: str) -> str | None:
    """Explain an operator that mmcv lacks for the device."""
    found = NO_OPERATOR.search(text)
    if found is not None:
        name, device = found[1], found[2]
    else:
        frames = [frame.tb_frame.f_code.co_filename.replace('\\', '/') for frame in _frames(error)]
        line = ''.join(place.line or '' for place in extract_tb(error.__traceback__)[-1:])
        guards = isinstance(error, NotImplementedError) or isinstance(error, AssertionError) and 'is_cuda' in line
        if not guards or not frames or '/mmcv/ops/' not in frames[-1]:
            return None
        name, device = frames[-1].rpartition('/')[2].removesuffix('.py'), 'cpu'
    name = SUFFIX.sub('', name) or name
    name = next((probe for probe in compiled_operators.PROBES if probe.startswith(name)), name)
    return compiled_operators.message(name, device, _caller(error), compiled_operators.instead_of(name))


def _geometric(error: BaseException, text: str) -> str | None:
    """Explain e2cnn's tensors in a place that needs plain ones."""
    if not isinstance(error, (TypeError, AttributeError)) or 'GeometricTensor' not in text or PACKAGE in text:
        return None
    return (
        f"{_caller(error)} cannot take e2cnn's GeometricTensor ({text}): mmrotate's own ReResNet returns it. Write "
        f"type='{PACKAGE}.ReResNet' for the backbone, whose plain tensors any neck takes"
    )


def _sizes(error: BaseException, text: str) -> str | None:
    """Explain a neck whose maps double in size while those of the backbone do not."""
    if not isinstance(error, RuntimeError) or not SIZES_DIFFER.search(text):
        return None
    for neck, maps in _necks(error):
        sides = ', '.join(f'{x.shape[-1]} x {x.shape[-2]}' for x in maps)
        if all(x.shape[d] == 2 * y.shape[d] for x, y in zip(maps, maps[1:], strict=False) for d in (-1, -2)):
            return None
        return (
            f'the neck {neck} needs maps of which each is twice as large as the next, and the backbone gives {sides}: '
            'images must have sides of 32m. Set model.data_preprocessor.pad_size_divisor=32, or resize to 192, 1024, '
            f'...; for 32m + 1, at which quarter turns are exact, take mmdet.FPN or {PACKAGE}.ReFPN'
        )
    return None


def _views(error: BaseException, text: str) -> str | None:  # noqa: ARG001
    """Explain mmdet's merging of views, which brings back horizontal boxes alone."""
    places = extract_tb(error.__traceback__)
    if not isinstance(error, AssertionError) or not places or places[-1].name != 'bbox_flip':
        return None
    if 'DetTTAModel' not in [type(owner).__name__ for owner in _owners(error)]:
        return None
    return (
        "tta_model: mmdet's DetTTAModel brings back horizontal boxes only, and this detector's are rotated. Write "
        f"type='{PACKAGE}.RotatedTTAModel', and put 'homography_matrix' among the meta_keys of PackDetInputs"
    )


def _refusal(error: BaseException, text: str) -> str | None:
    """Return the text of an error that this package raised with a `raise` of its own."""
    if not isinstance(error, REFUSALS):
        return None
    if 'Original Traceback' in text:
        return _refusal_in_a_worker(text)
    places = extract_tb(error.__traceback__)
    if not places or not (places[-1].line or '').lstrip().startswith('raise'):
        return None
    frame = [*_frames(error)][-1].tb_frame
    if not str(frame.f_globals.get('__name__', '')).startswith(f'{PACKAGE}.'):
        return None
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else text


def _refusal_in_a_worker(text: str) -> str | None:
    """Do the same for a worker process, whose traceback comes as text."""
    lines = text.rstrip().splitlines()
    last = max((i for i, line in enumerate(lines) if line.startswith('  File "')), default=None)
    if last is None or f'/{PACKAGE}/' not in lines[last] or not lines[last + 1].lstrip().startswith('raise'):
        return None
    return lines[-1].partition(': ')[2]


def _frames(error: BaseException) -> Iterator[Any]:
    place = error.__traceback__
    while place is not None:
        yield place
        place = place.tb_next


def _owners(error: BaseException) -> list[Any]:
    """List the objects whose methods were running, outermost first: modules, assigners and other parts of the hosts."""
    found: list[Any] = []
    for place in _frames(error):
        owner = place.tb_frame.f_locals.get('self')
        package = type(owner).__module__.partition('.')[0]
        ours = package != 'torch' and isinstance(owner, nn.Module) or package in ('mmdet', 'mmrotate', PACKAGE)
        if ours and (not found or found[-1] is not owner):
            found.append(owner)
    return found


def _caller(error: BaseException) -> str:
    """Name the last of them, and the part of the detector that it belongs to."""
    modules = [owner for owner in _owners(error) if not _is_detector(owner)]
    names = list(dict.fromkeys(type(owner).__name__ for owner in modules))
    if not names:
        return 'the model'
    return names[-1] if len(names) == 1 else f'{names[-1]} in {names[0]}'


def _is_detector(owner: Any) -> bool:
    try:
        base = import_module('mmengine.model').BaseModel
    except ImportError:
        return False
    return isinstance(owner, base) or type(owner).__name__.endswith(('DataParallel', 'Runner', 'Loop'))


def _necks(error: BaseException) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield the necks that were running, with the maps that they were given."""
    for place in _frames(error):
        local = place.tb_frame.f_locals
        owner = local.get('self')
        if not isinstance(owner, nn.Module) or '.necks.' not in f'{type(owner).__module__}.':
            continue
        for name in ('inputs', 'x', 'feats', 'input'):
            maps = local.get(name)
            if isinstance(maps, (list, tuple)) and len(maps) > 1 and all(isinstance(x, Tensor) for x in maps):
                yield type(owner).__name__, list(maps)
                break
