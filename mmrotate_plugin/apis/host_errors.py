"""Distinguish errors that a host raises about its config from bugs of this package.

A config reaches the hosts' code far from where it was read: an argument of a head is used in the first iteration, that
of a metric after the last image. What is raised there, and nothing of this package in between, is about the config (or
a bug of the host, which the message names too). Where a layer, data set or rule of this package is in between, it may
have given the host something wrong: that keeps its traceback.
"""

import re
from traceback import FrameSummary, extract_tb

PACKAGE = __name__.partition('.')[0]
HOSTS = ('mmdet', 'mmrotate', 'mmengine', 'mmcv', 'mmpretrain', 'mmseg')
FAULTS = (LookupError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError, ArithmeticError)
# of this package, what hands the config, images and samples over to the hosts as they came
READERS = 'datasets/(utils/broken_files|labelled_dataset|synthetic/dataset|xml_dataset)'
MEASURES = r'evaluation/(error_fit|method_\w+|mmrotate_map|metrics/uncertainty_metric)'
PASSES_ON = re.compile(
    rf'/{PACKAGE}/(engine/(?!hooks/)[\w/]+|(apis|commands)/[\w/]+|hosts/mends|{READERS}|{MEASURES})\.py$'
)
NO_MEMORY = re.compile(r"can't allocate memory|(out of|not enough) memory|Storage size calculation overflowed", re.I)
TRACEBACK = 'MMROTATE_PLUGIN_TRACEBACK'  # of the environment: 1 shows what is else one line
IN_A_WORKER = re.compile(r'  File "([^"]+)", line (\d+), in (\S+)\n    (.*)')


def fault_of_config(error: BaseException, text: str) -> str | None:
    """Return one line on what a host raised about its arguments; None if this package may be to blame."""
    if not isinstance(error, FAULTS) and type(error).__module__ != 'cv2':
        return None
    kind, message, places = type(error).__name__, text, list(extract_tb(error.__traceback__))
    if 'Original Traceback' in text:
        found = IN_A_WORKER.findall(text)
        places = [FrameSummary(file, int(line), name, line=code) for file, line, name, code in found]
        kind, _, message = text.rstrip().splitlines()[-1].partition(': ')
    files = [place.filename.replace('\\', '/') for place in places]
    ours = [i for i, file in enumerate(files) if _is_ours(file)]
    after = range(ours[-1] + 1 if ours else 0, len(files))
    hosts = [i for i in after if _host(files[i])]
    if not hosts or (ours and not _passes_on(files[ours[-1]])):
        return None
    if not all(_host(files[i]) or _is_library(files[i]) for i in after):  # a test's, or a user's own class
        return None
    place, host = places[hosts[-1]], _host(files[hosts[-1]])
    where = f'{host}{files[hosts[-1]].rpartition(f"/{host}")[2]}:{place.lineno}'
    said = ' '.join(message.split()) or (place.line or '').strip()
    return (
        f'the config cannot be run: {kind}: {said[:300]} (from {place.name} in {where}). Compare what that part '
        f'is given with the config that you began with; {TRACEBACK}=1 shows the traceback'
    )


def no_memory(error: BaseException, text: str) -> str | None:
    """Explain a size, batch or network that needs more memory than there is."""
    if not isinstance(error, MemoryError) and not (isinstance(error, RuntimeError) and NO_MEMORY.search(text)):
        return None
    return (
        f'there is not enough memory ({" ".join(text.split())[:150] or type(error).__name__}): take smaller images, a '
        'smaller batch (train_dataloader.batch_size), or a narrower network'
    )


def file_error(error: BaseException, text: str) -> str | None:  # noqa: ARG001
    """Explain a path that the operating system refuses: too long, no permission, a file in place of a folder."""
    if not isinstance(error, OSError) or error.filename is None or _is_ours(str(error.filename)):
        return None
    name = str(error.filename)
    name = name if len(name) < 200 else f'{name[:80]}...'
    return f"'{name}' cannot be used: {error.strerror or type(error).__name__}"


def _host(file: str) -> str | None:
    return next((host for host in HOSTS if f'/{host}/' in file and f'/{PACKAGE}/' not in file), None)


def _is_ours(file: str) -> bool:
    return f'/{PACKAGE}/' in file


def _passes_on(file: str) -> bool:
    return f'/{PACKAGE}/' not in file or PASSES_ON.search(file) is not None


def _is_library(file: str) -> bool:
    return file.startswith('<') or '/site-packages/' in file or '/lib/python' in file or '/lib64/python' in file
