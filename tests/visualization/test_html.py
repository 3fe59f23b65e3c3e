"""Pages of one file: what is escaped, what is missing, and that nothing is fetched."""

import base64
import re

import cv2
import jinja2
import numpy as np
import pytest

from mmrotate_plugin.visualization.html import png_uri, render_page, rendering


def test_a_page_fetches_nothing_and_escapes_names():
    page = render_page('base.html', title='<script>alert(1)</script> & ship')
    assert '&lt;script&gt;alert(1)&lt;/script&gt; &amp; ship' in page and '<script' not in page
    assert not re.search(r'(?:src|href)="(?!data:|#)|url\(|@import|https?:', page)
    assert 'width=device-width' in page


def test_what_a_template_misses_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match='title'):
        render_page('base.html')
    with pytest.raises(jinja2.TemplateNotFound):
        render_page('nowhere.html', title='')


def test_every_template_compiles():
    names = [path.name for path in rendering.TEMPLATES.glob('*.html')]
    assert 'base.html' in names
    for name in names:
        rendering._environment().get_template(name)


def test_a_picture_becomes_an_address_and_comes_back():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    uri = png_uri(image)
    head, _, text = uri.partition(',')
    data = base64.b64decode(text)
    assert head == 'data:image/png;base64'
    assert (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) == image).all()
    assert png_uri(data) == uri and png_uri(image, '.jpg').startswith('data:image/jpeg;base64,/9j/')
    with pytest.raises(ValueError, match=r"suffix='.gif' must be one of .png, .jpg"):
        png_uri(image, '.gif')
