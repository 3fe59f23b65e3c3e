"""Read the frames of a video with OpenCV, and write one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from ..utils.atomic_files import whole_file
from ..utils.errors import ImageError
from ..visualization.pixels import Image

CODECS = {'.mp4': 'mp4v', '.avi': 'MJPG'}
USUAL_RATE = 25.0  # frames per second, where a video says none
# containers give the number of frames from the length and the rate, which may be a little off
SLACK, SLACK_SHARE = 2, 0.01


class Video:
    """A video to read.

    Args:
        path: Its file.

    Attributes:
        rate: Frames per second.
        count: Number of frames as the file says it; 0 if it does not.

    Raises:
        ImageError: If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        if not os.path.isfile(path):
            raise ImageError(f"'{path}' {'is not a file' if os.path.exists(path) else 'does not exist'}")
        if not path.stat().st_size:
            raise ImageError(f"'{path}' is an empty file")
        self.path = path
        capture = cv2.VideoCapture(str(path))
        try:
            if not capture.isOpened():
                raise ImageError(f"'{path}' is no video that OpenCV can read: it is cut off, or of an unknown codec")
            rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        finally:
            capture.release()
        self.rate = float(rate) if np.isfinite(rate) and 0 < rate <= 1000 else USUAL_RATE
        self.count = int(count) if np.isfinite(count) and 0 < count < 2**31 else 0

    def __iter__(self) -> Iterator[Image]:
        """Yield the frames, (H, W, 3) in OpenCV's channel order.

        Raises:
            ImageError: After the last frame that can be read, if the file says that there are more.
        """
        capture = cv2.VideoCapture(str(self.path))
        read = 0
        try:
            while True:
                done, frame = capture.read()
                if not done or frame is None:
                    break
                read += 1
                yield np.asarray(frame, np.uint8)
        finally:
            capture.release()
        if not read:
            raise ImageError(f"'{self.path}' has no frame that OpenCV can read")
        if read < self.count - max(SLACK, SLACK_SHARE * self.count):
            raise ImageError(f"'{self.path}' breaks off after {read} of {self.count} frames")


class VideoFile:
    """A video that is being written; `write` takes the frames.

    Args:
        path: Where the frames go meanwhile.
        rate: Frames per second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate, self.frames = path, rate, 0
        self._writer: cv2.VideoWriter | None = None
        self._size: tuple[int, ...] = ()

    def write(self, frame: Image) -> None:
        """Add a frame, (H, W, 3); of another size than the first, it is resized.

        Raises:
            OSError: If OpenCV cannot write there.
        """
        if self._writer is None:
            self._size = frame.shape[1::-1]
            code = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self.path), code, self.rate, self._size)
            if not self._writer.isOpened():
                raise OSError(f'OpenCV cannot write a video of {self._size[0]} x {self._size[1]} pixels there')
        if frame.shape[1::-1] != self._size:
            frame = np.asarray(cv2.resize(frame, self._size), np.uint8)
        self._writer.write(frame)
        self.frames += 1

    def close(self) -> None:
        """Finish the file.

        Raises:
            OSError: If it cannot be read back whole, as on a full disk, of which OpenCV says nothing.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        capture = cv2.VideoCapture(str(self.path))
        written = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        capture.release()
        if written < self.frames - max(SLACK, SLACK_SHARE * self.frames):
            raise OSError(f'only {written:.0f} of {self.frames} frames reached the file; is the disk full?')

    def abandon(self) -> None:
        """Let go of the file."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None


@contextmanager
def writing_video(path: Path, rate: float) -> Iterator[VideoFile]:
    """Write a video in one step: a reader never sees a part of it.

    Args:
        path: File to write, .mp4 or .avi.
        rate: Frames per second.

    Raises:
        OSError: If it cannot be written; nothing is left behind.
    """
    with whole_file(path) as temporary:
        file = VideoFile(temporary, rate)
        try:
            yield file
            file.close()
        finally:
            file.abandon()
