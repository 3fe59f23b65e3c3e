"""Check arguments of a convolution, as torch takes them, for treating both axes alike."""


def square(name: str, value: int | tuple[int, int], least: int) -> tuple[int, int]:
    """Return `value` as a pair of equal integers: a quarter turn swaps the axes, so they must be alike."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or any(not isinstance(v, int) or v < least for v in pair) or pair[0] != pair[1]:
        raise ValueError(f'{name}={value!r} must be one integer >= {least} (or a pair of equal ones): turns swap axes')
    return pair


def named_padding(
    name: str, kernel_size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int]:
    """Return the pixels of torch's 'valid' and 'same' for an odd kernel, equal on both sides."""
    if name not in ('valid', 'same'):
        raise ValueError(f"padding={name!r} is unknown: use a number of pixels, 'valid' or 'same'")
    if name == 'valid':
        return (0, 0)
    if stride != (1, 1):
        raise ValueError(f"padding='same' cannot keep the size with stride={stride}: give a number of pixels")
    return (dilation[0] * (kernel_size[0] // 2),) * 2
