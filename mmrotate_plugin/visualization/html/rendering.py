"""Fill templates of pages, and turn pictures into texts that a page holds itself."""

import base64
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from ..pixels import encode_image

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / 'templates'
_KINDS = {'.png': 'image/png', '.jpg': 'image/jpeg'}


def render_page(template: str, **values: Any) -> str:
    """Fill a template of the folder ``templates``; texts are escaped, so names from files cannot become markup.

    Args:
        template: Its file name; it extends ``base.html``, which needs `title`.
        values: What the template names.

    Returns:
        A page that needs no other file.

    Raises:
        jinja2.TemplateNotFound: If there is no such template.
        jinja2.UndefinedError: If the template names a value that is missing.
    """
    return _environment().get_template(template).render(**values)


def png_uri(image: ArrayLike | bytes, suffix: str = '.png') -> str:
    """Turn a picture into a ``data:`` address for the `src` of an ``<img>``.

    Args:
        image: (H, W, 3) uint8 in OpenCV's channel order, or the bytes of such a file.
        suffix: '.png', or '.jpg', which is smaller for photographs.

    Raises:
        ValueError: If `suffix` is another one.
    """
    if suffix not in _KINDS:
        raise ValueError(f'suffix={suffix!r} must be one of {", ".join(_KINDS)}')
    data = image if isinstance(image, bytes) else encode_image(image, suffix)
    return f'data:{_KINDS[suffix]};base64,{base64.b64encode(data).decode()}'


@cache
def _environment() -> 'Environment':
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
