"""All checks of data sets look into wrappers in the same way."""

from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from mmrotate_plugin.datasets.utils.path_check import files_outside
from mmrotate_plugin.datasets.utils.wrappers import leaves
from mmrotate_plugin.engine.checks.dataset_classes import has_objects
from mmrotate_plugin.engine.checks.head_classes import classes_of
from mmrotate_plugin.engine.checks.input_images import check_first_image
from mmrotate_plugin.utils.errors import ImageError


class LoadImageFromFile:
    def __call__(self, results):
        return {**results, 'img': np.zeros((9, 9, 5), np.uint8)}


class Data:
    """A data set with one image of five channels, outside of its folder, and one object."""

    metainfo = {'classes': ('ship',)}
    data_root = '/inside'
    pipeline = SimpleNamespace(transforms=[LoadImageFromFile()])

    def __len__(self):
        return 1

    def get_data_info(self, _):
        return {'img_path': '/outside/a.png', 'instances': [{'ignore_flag': 0}]}


def concat(*parts):
    return SimpleNamespace(datasets=list(parts))


def repeat(part):
    return SimpleNamespace(dataset=part)


@pytest.mark.parametrize(
    'wrap', [lambda d: d, repeat, concat, lambda d: repeat(concat(d)), lambda d: concat(repeat(d))]
)
def test_every_check_finds_the_data_set_inside(wrap):
    data = Data()
    wrapped = wrap(data)
    assert list(leaves(wrapped)) == [data]
    assert files_outside(wrapped) == ['/outside/a.png']
    assert classes_of(wrapped) == ('ship',) and has_objects(wrapped)
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.conv1 = nn.Conv2d(3, 4, 1)
    with pytest.raises(ImageError, match='has 5 channels'):
        check_first_image(model, wrapped)
    model.backbone.conv1 = nn.Conv2d(5, 4, 1)
    check_first_image(model, wrapped)  # the control: an image that fits passes


def test_several_parts_come_in_order():
    first, second, third = Data(), Data(), Data()
    assert list(leaves(concat(repeat(first), concat(second, third)))) == [first, second, third]
