"""Cut images into the files of their patches, in several threads and with bounded memory."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from ...utils.atomic_files import write_whole
from ..utils.broken_files import BrokenFileError
from .patch_file import encode, pad
from .plan import Cut, Patch, inside

BUDGET = 256 * 2**20  # bytes of decoded pixels; a larger image is cut alone

Label = Callable[[Cut, Patch], tuple[Path, str] | None]


def cut_images(
    cuts: Sequence[Cut],
    label: Label,
    *,
    padding: tuple[float, ...] | None,
    nproc: int,
    progress: Callable[[int], None],
) -> tuple[list[tuple[Cut, BrokenFileError]], int]:
    """Write all patches that are missing or older than their image, each with its label file.

    OpenCV, GDAL and zlib work outside of Python's lock, so threads are enough; all of them share a decoded image.

    Args:
        cuts: The images.
        label: Gives path and text of the label file of a patch, or None.
        padding: Value of the padding; None for none.
        nproc: Number of threads.
        progress: Called with the number of patches so far.

    Returns:
        The images that cannot be decoded, whose patches are removed, and the number of patches that were there.

    Raises:
        OSError: If a file cannot be written.
    """
    work = _Work(label, padding, progress)
    with ThreadPoolExecutor(nproc) as pool:
        waiting: dict[Future[None], Cut] = {}
        left = {id(cut): len(cut.patches) for cut in cuts}
        held = 0

        def settle() -> None:
            nonlocal held
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                cut = waiting.pop(future)
                left[id(cut)] -= 1
                if not left[id(cut)]:
                    cut.reader.close()
                    held -= cut.cost
                future.result()

        try:
            for cut in cuts:
                while waiting and held + cut.cost > BUDGET:
                    settle()
                held += cut.cost
                for patch in cut.patches:
                    waiting[pool.submit(work.write, cut, patch)] = cut
            while waiting:
                settle()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    for cut, _ in work.broken:
        work.remove(cut)
    return work.broken, work.continued


class _Work:
    """What the threads share."""

    def __init__(self, label: Label, padding: tuple[float, ...] | None, progress: Callable[[int], None]) -> None:
        self.label, self.padding, self.progress = label, padding, progress
        self.broken: list[tuple[Cut, BrokenFileError]] = []
        self.continued = self.count = 0
        self.lock = threading.Lock()

    def write(self, cut: Cut, patch: Patch) -> None:
        """Write a patch and its label file, unless they are there or the image is broken."""
        with self.lock:
            if any(cut is other for other, _ in self.broken):
                return
        file = patch.sample.image
        there = _newer(file, cut.sample.image)
        if not there:
            x, y, side = patch.window
            width, height = inside(patch.window, cut.sample.width, cut.sample.height)
            try:
                image = cut.reader.read(x, y, width, height)
            except BrokenFileError as error:
                with self.lock:
                    if not any(cut is other for other, _ in self.broken):
                        self.broken.append((cut, error))
                return
            profile = cut.reader.profile(x, y, width, height)
            image = image if self.padding is None else pad(image, side, self.padding)
            write_whole(file, encode(image, file.suffix, cut.reader.header.kind, profile))
        told = self.label(cut, patch)
        if told is not None:
            write_whole(*told)
        with self.lock:
            self.continued += there
            self.count += 1
            self.progress(self.count)

    def remove(self, cut: Cut) -> None:
        """Remove the patches of an image that turned out to be broken."""
        for patch in cut.patches:
            patch.sample.image.unlink(missing_ok=True)
            told = self.label(cut, patch)
            if told is not None:
                told[0].unlink(missing_ok=True)


def _newer(patch: Path, image: Path) -> bool:
    try:
        return patch.stat().st_mtime_ns > image.stat().st_mtime_ns
    except OSError:
        return False
