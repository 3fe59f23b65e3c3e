import cv2
import numpy as np
import pytest
import torch

from mmrotate_plugin.equivariant import ennConv, ennTrivialConv
from mmrotate_plugin.equivariant.basis import steerable_basis
from mmrotate_plugin.visualization.plots import basis as pictures
from mmrotate_plugin.visualization.plots.basis import TERMS
from mmrotate_plugin.visualization.plots.basis_text import combine, orientation_names, reading_order
from mmrotate_plugin.visualization.plots.page import DOTS, FAINT, MARK, WIDTH

SCALE = DOTS / 100


class Recorder(pictures.Page):
    """A page that notes where kernels and frames are."""

    def __init__(self):
        super().__init__()
        self.kernels, self.marks = [], []

    def kernel(self, x, y, size, kernel, limit, frame=FAINT):
        self.kernels.append((x, y, size))
        super().kernel(x, y, size, kernel, limit, frame)

    def frame(self, x, y, size, colour=FAINT):
        if colour == MARK:
            self.marks.append((x, y, size))
        super().frame(x, y, size, colour)

    def pixels(self):
        return cv2.imdecode(np.frombuffer(self.png(), np.uint8), cv2.IMREAD_COLOR)


def read(image, place, k):
    """The (k, k, 3) colours of a kernel in a picture."""
    x, y, size = place
    centres = (np.arange(k) + 0.5) * size / k
    rows, columns = ((start + centres) * SCALE for start in (y, x))
    return image[rows.astype(int)][:, columns.astype(int)]


@pytest.mark.parametrize('kernel_size', [3, 5, 7])
def test_orientations_of_c4_are_quarter_turns_of_one_another(kernel_size):
    elements = steerable_basis('C4', kernel_size, trivial_input=True).samples[:, :, 0].numpy()
    turned = [np.stack([np.rot90(element[0], g) for g in range(4)]) for element in elements]
    np.testing.assert_allclose(elements, turned, atol=1e-12)
    shuffled = elements[:, [0, 2, 1, 3]]
    assert np.abs(shuffled - turned).max() > 0.1


def test_picture_shows_those_turns():
    basis, page = steerable_basis('C4', 5, trivial_input=True), Recorder()
    pictures.draw_one_element(page, basis, 'C4')
    image = page.pixels()
    first, *others = (read(image, place, 5) for place in page.kernels)
    assert len(others) == 3
    for g, other in enumerate(others, 1):
        assert (other == np.rot90(first, g)).all()
        assert (other != np.rot90(first, g + 1)).any()


@pytest.mark.parametrize('group', ['C4', 'C6', 'C8', 'D4'])
def test_framed_blocks_are_one_kernel_turned(group):
    basis, page = steerable_basis(group, 3), Recorder()
    torch.manual_seed(0)
    pictures.draw_blocks(page, basis, torch.randn(len(basis.samples)), group)
    image = page.pixels()
    assert len(page.marks) == 4
    for first, second in (page.marks[:2], page.marks[2:]):
        a, b = read(image, first, 3), read(image, second, 3)
        if group != 'C6':  # its step of 60 degrees is none of the grid
            assert (b == np.rot90(a)).all()
        assert (b != a).any()
        assert second[0] > first[0]


def test_blocks_need_regular_input():
    basis = steerable_basis('C4', 3, trivial_input=True)
    with pytest.raises(ValueError, match='between regular fields'):
        pictures.draw_blocks(pictures.Page(), basis, torch.ones(8), 'C4')


@pytest.mark.parametrize('layer', [ennTrivialConv(3, 16, 5, group='C8'), ennConv(16, 16, 3, group='D4')], ids=repr)
def test_combined_coefficients_are_the_layers_filter(layer):
    k, order = layer.kernel_size[0], 8
    n_in = 1 if layer.trivial_input else order
    coefficients = pictures.field_pair(layer.weight, (1, 0))
    part = combine(layer.basis, coefficients)
    whole = layer.expand().view(2, order, -1, n_in, k, k)
    assert torch.allclose(part.float(), whole[0, :, 1], atol=1e-6)
    assert not torch.allclose(part.float(), whole[1, :, 1], atol=1e-2)


def test_field_pair_is_input_then_output():
    weight = torch.arange(24.0).view(2, 3, 4)
    assert pictures.field_pair(weight, (2, 1)).tolist() == [20, 21, 22, 23]
    with pytest.raises(ValueError, match='field pair 3 0 .*input fields are 0 to 2, its output fields 0 to 1'):
        pictures.field_pair(weight, (3, 0))
    with pytest.raises(ValueError, match='field pair 0 -1'):
        pictures.field_pair(weight, (0, -1))


def test_terms_of_the_sum_add_up_to_the_filter():
    """The weighted kernels in the lower row share one scale, so their values can be read back and added."""
    layer, seen = ennTrivialConv(1, 8, 5), []

    class Sums(pictures.Page):
        def kernel(self, x, y, size, kernel, limit, frame=FAINT):
            seen.append((y, kernel, limit, frame))
            super().kernel(x, y, size, kernel, limit, frame)

    pictures.draw_sum(Sums(), layer.basis, layer.weight[0, 0], 'C8')
    (result,) = [s for s in seen if s[3] == MARK]
    terms = [s for s in seen if s[0] == result[0] and s[3] != MARK]
    assert len(terms) == TERMS + 1
    assert {s[2] for s in terms} == {result[2]}
    total = sum(s[1] for s in terms)
    np.testing.assert_allclose(total, result[1], atol=1e-12)
    np.testing.assert_allclose(total, layer.expand()[0, 0].detach(), atol=1e-6)


def test_zero_is_white_and_signs_differ():
    page = Recorder()
    page.kernel(100, 50, 90, np.array([[0.0, 2.0, -2.0]] * 3), 2.0)
    page.kernel(300, 50, 90, np.zeros((3, 3)), 0.0)
    page.height = 200
    image = page.pixels()
    assert image.shape == (200 * SCALE, WIDTH * SCALE, 3)
    white, red, blue = read(image, page.kernels[0], 3)[0].astype(int)
    assert (white == 255).all() and red[2] > red[0] + 50 and blue[0] > blue[2] + 50
    assert (read(image, page.kernels[1], 3) == 255).all()


def test_elements_are_sorted_and_all_drawn():
    basis, page = steerable_basis('C8', 7, trivial_input=True), Recorder()
    order = reading_order(basis)
    keys = [(basis.radius[e], abs(basis.frequency[e])) for e in order]
    assert keys == sorted(keys) and sorted(order) == list(range(40))
    pictures.draw_elements(page, basis)
    assert len(set(page.kernels)) == len(page.kernels) == 40
    assert max(x + size for x, _, size in page.kernels) < WIDTH
    assert max(y + size for _, y, size in page.kernels) < page.height


def test_names_of_orientations():
    assert orientation_names('C8')[:3] == ['0°', '45°', '90°']
    assert orientation_names('C16')[1] == '22.5°'
    assert orientation_names('D4')[3:6] == ['270°', 'mirrored, 0°', 'mirrored, 90°']


@pytest.mark.parametrize('layer', [
    ennTrivialConv(1, 16, 1, group='D8'),
    ennConv(16, 16, 1, group='C16'),
    ennConv(6, 6, 3, group='C3', groups=2),
], ids=repr)  # fmt: skip
def test_odd_cases_are_drawn_too(layer):
    with torch.no_grad():
        layer.weight.zero_()
    parts = pictures.parts(layer, pictures.field_pair(layer.weight, (0, 0)))
    assert list(parts) == ['elements', 'filter'] + ['blocks'] * (not layer.trivial_input)
    for draw in parts.values():
        page = pictures.Page()
        draw(page)
        assert page.png().startswith(b'\x89PNG')


def test_description_multiplies_out():
    text = dict(pictures.describe(ennConv(32, 16, 3, groups=2, group='C8')))
    assert text['fields'] == '4 regular -> 2 regular, 2 groups'
    assert text['coefficients'] == (
        '2 input fields x 2 fields x 64 basis elements = 256 coefficients -> 16 x 16 x 3 x 3 = 2304 filter entries'
    )
    assert text['ratio'] == '9 filter entries per coefficient'
