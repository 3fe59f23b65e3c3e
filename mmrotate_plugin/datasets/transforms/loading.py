"""Load image files upright, with any number of channels, and convert any bit depth to 8 bits by a stated rule."""

import io
from collections.abc import Sequence
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile as HostLoadImageFromFile
from mmengine.fileio import FileClient, get
from numpy.typing import NDArray

from ...registry import TRANSFORMS
from ..utils.image_headers import BANDS, Header, ImageKind, ImageKindError, read_header, read_tiff, turn, what_to_write

COLOR_TYPES = ('color', 'grayscale', 'unchanged', 'color_ignore_orientation', 'grayscale_ignore_orientation')


@TRANSFORMS.register_module()
class LoadImageFromFile(HostLoadImageFromFile):
    """Load an image of any bit depth and number of channels as grey levels from 0 to 255.

    ``type='mmrotate_plugin.LoadImageFromFile'`` finds it from every scope. It takes the arguments of mmcv's class, and
    handles what silently goes wrong there:

    - Samples of more than 8 bits are converted by `bit_depth`, or by `black` and `white`. mmcv's class keeps the upper
      8 of 16 bits, which leaves an image of 12 bits nearly black. Without either argument such a file is refused,
      unless its format says how many bits are in use.
    - A TIFF of any number of bands is read completely: interleaved, in planes, or one page per band (needs tifffile).
    - EXIF's orientation is applied in JPEG, PNG, WebP and TIFF alike, with 'unchanged' too; OpenCV does so in some of
      them. Labels belong to the upright image, as viewers show it; ``color_type='color_ignore_orientation'`` takes the
      image as stored.

    Args:
        bit_depth: Bits in use, 8 to 16, of samples with more than 8: values become ``value / 2^(bit_depth - 8)``,
            rounded down. Larger values are refused.
        black, white: Instead of `bit_depth`, the values that become 0 and 255, linearly; values beyond are clipped. For
            floating-point and signed samples, and to cut off the brightest values.
        channels: Stored channels to take, counted from 0, in this order, such as (2, 1, 0). None with 'unchanged' takes
            all, colours in OpenCV's order (blue, green, red), others in the stored order.
        to_float32: Keep the fractions of grey levels, as float32.
        color_type: 'color' (three channels, alpha left out), 'grayscale', 'unchanged' (all channels), or one of the
            first two with '_ignore_orientation'.
        imdecode_backend: 'cv2', 'pillow' or 'turbojpeg', for files of 8 bits other than TIFF.
        ignore_empty: Return None for files that cannot be read.
        kwargs: `backend_args` and `file_client_args`, see mmcv's class.

    Required keys: img_path.

    Added keys: img, (H, W) or (H, W, C); img_shape, ori_shape.

    Raises:
        ImageKindError: If the arguments do not fit a file; the message says what to write.
        ValueError: If an argument is out of range, or a file cannot be decoded.
    """

    def __init__(
        self,
        to_float32: bool = False,
        color_type: str = 'color',
        imdecode_backend: str = 'cv2',
        *,
        ignore_empty: bool = False,
        bit_depth: int | None = None,
        black: float = 0.0,
        white: float | None = None,
        channels: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(to_float32, color_type, imdecode_backend, ignore_empty=ignore_empty, **kwargs)
        if color_type not in COLOR_TYPES:
            raise ValueError(f'color_type={color_type!r} is unknown: use one of {", ".join(map(repr, COLOR_TYPES))}')
        if bit_depth is not None and not (type(bit_depth) is int and 8 <= bit_depth <= 16):
            raise ValueError(f'bit_depth={bit_depth!r} must be the bits in use, from 8 to 16, such as 12')
        if bit_depth is not None and white is not None:
            raise ValueError(f'give one of bit_depth={bit_depth} and white={white}, not both')
        if white is not None and not black < white < float('inf'):
            raise ValueError(f'white={white} must be above black={black}')
        if white is None and black:
            raise ValueError(f'black={black} needs white, the value that becomes 255')
        if channels is not None and (not channels or not all(type(c) is int and c >= 0 for c in channels)):
            raise ValueError(f'channels={channels!r} must be counted from 0, such as (2, 1, 0)')
        self.bit_depth, self.black, self.white = bit_depth, black, white
        self.channels = None if channels is None else tuple(channels)

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Load ``results['img_path']``."""
        path = str(results['img_path'])
        try:
            if self.file_client_args is not None:
                data = FileClient.infer_client(self.file_client_args, path).get(path)
            else:
                data = get(path, backend_args=self.backend_args)
            image = self.decode(data, path)
        except ImageKindError:
            raise
        except Exception:
            if self.ignore_empty:
                return None
            raise
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def decode(self, data: bytes, name: str) -> NDArray[Any]:
        """Decode the bytes of a file; `name` is for messages."""
        try:
            header = read_header(io.BytesIO(data))
        except (OSError, SyntaxError, ValueError):  # formats that only OpenCV reads, such as OpenEXR, are upright
            header = Header(ImageKind('', '', 1, 32), 0, 0)
        image = self._stored(data, header.kind, name)
        return self._grey_levels(image, header.bits_in_use, name)

    def stored(self, path: str) -> NDArray[Any]:
        """Load channels and orientation as wanted, samples as the file has them."""
        data = get(path, backend_args=self.backend_args)
        return self._stored(data, read_header(io.BytesIO(data)).kind, path)

    def _stored(self, data: bytes, kind: ImageKind, name: str) -> NDArray[Any]:
        flag, ignoring, _ = self.color_type.partition('_ignore_orientation')
        if kind.format == 'TIFF' and (
            kind.coding == BANDS or kind.channels > 4 or kind.sample != 'uint' or kind.bits > 16
        ):
            image = self._bands(read_tiff(data, kind, name), kind, flag, name)
            return np.ascontiguousarray(image if ignoring else turn(image, kind.orientation))
        plain = kind.format not in ('TIFF', '') and kind.bits == 8 and self.channels is None and flag != 'unchanged'
        if plain and self.imdecode_backend in ('pillow', 'turbojpeg'):
            flag += '_ignore_orientation' * (self.imdecode_backend == 'pillow')
            image = mmcv.imfrombytes(data, flag=flag, backend=self.imdecode_backend)
            return np.ascontiguousarray(image if ignoring else turn(image, kind.orientation))
        mode = {'color': cv2.IMREAD_COLOR, 'grayscale': cv2.IMREAD_GRAYSCALE}[flag] if flag != 'unchanged' else -1
        if self.channels is not None or kind.bits == 32:
            mode = cv2.IMREAD_UNCHANGED
        elif mode != cv2.IMREAD_UNCHANGED:
            mode |= cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_ANYDEPTH if kind.bits > 8 else 0)
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
        if decoded is None:
            raise ValueError(f"'{name}' is not an image that OpenCV can read")
        image = np.asarray(decoded)
        # OpenCV has turned a TIFF, whatever the flag
        if kind.format == 'TIFF':
            image = turn(image, {6: 8, 8: 6}.get(kind.orientation, kind.orientation)) if ignoring else image
        elif not ignoring:
            image = turn(image, kind.orientation)
        if mode == cv2.IMREAD_UNCHANGED and (self.channels is not None or flag != 'unchanged'):
            if image.ndim == 3 and image.shape[2] > 2:
                image = image[..., [2, 1, 0, *range(3, image.shape[2])]]  # as stored
            image = self._bands(image, kind, flag, name)
        return np.ascontiguousarray(image)

    def _bands(self, image: NDArray[Any], kind: ImageKind, flag: str, name: str) -> NDArray[Any]:
        """Take the wanted channels of those in the stored order."""
        count = image.shape[2] if image.ndim == 3 else 1
        if self.channels is not None:
            if max(self.channels) >= count:
                raise ImageKindError(f"'{name}' has {count} channels, but channels={self.channels} counts from 0")
            return image.reshape(*image.shape[:2], count)[..., list(self.channels)]
        if flag == 'unchanged':
            return image[..., [2, 1, 0, *range(3, count)]] if kind.coding == 'RGB' and 3 <= count <= 4 else image
        if count > 1 and (kind.coding == BANDS or count > 4):
            raise ImageKindError(
                f"'{name}' has {count} bands, and color_type='{self.color_type}' does not say which: give "
                f"mmrotate_plugin.LoadImageFromFile color_type='unchanged' for a network with in_channels={count}, or "
                'channels=, such as (2, 1, 0), for some of them'
            )
        if flag == 'color':
            return image[..., 2::-1] if count >= 3 else np.repeat(image.reshape(*image.shape[:2], count)[..., :1], 3, 2)
        if count < 3:
            return image.reshape(*image.shape[:2], count)[..., 0]
        return (image[..., :3] @ np.array([0.299, 0.587, 0.114])).astype(image.dtype)  # ITU-R BT.601, as OpenCV

    def _grey_levels(self, image: NDArray[Any], bits_in_use: int | None, name: str) -> NDArray[Any]:
        if image.dtype == np.uint8:
            return image.astype(np.float32) if self.to_float32 else image
        if self.white is not None:
            values = np.nan_to_num(image.astype(np.float64), nan=self.black)
            values = ((values - self.black) * (255 / (self.white - self.black))).clip(0, 255)
            return values.astype(np.float32) if self.to_float32 else np.rint(values).astype(np.uint8)
        bits = self.bit_depth or bits_in_use
        whole = image.dtype.kind in 'iu' and image.dtype.itemsize == 2
        if bits is None or not whole:
            raise ImageKindError(
                f"'{name}' has samples of type {image.dtype}, and nothing says which is white; {what_to_write(image)}"
            )
        low, high = int(image.min(initial=0)), int(image.max(initial=0))
        if low < 0 or high >= 1 << bits:
            beyond = low if low < 0 else high
            raise ImageKindError(
                f"'{name}' has the value {beyond}, which is none of bit_depth={bits}; {what_to_write(image)}"
            )
        if self.to_float32:
            return image.astype(np.float32) / 2 ** (bits - 8)
        return (image >> (bits - 8)).astype(np.uint8)

    def __repr__(self) -> str:
        own = ', '.join(f'{name}={getattr(self, name)}' for name in ('bit_depth', 'black', 'white', 'channels'))
        return f'{super().__repr__()[:-1]}, {own})'
