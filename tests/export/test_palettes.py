"""Exported detectors have a colour for each class, whatever their config and checkpoint say."""

import pytest
from mmengine.config import Config

from mmrotate_plugin.export.writers import colour_datasets, dataset_meta

pytest.importorskip('mmrotate')
EIGHTEEN = tuple(f'class{i}' for i in range(18))


def config(**metainfo) -> Config:
    dataset = {'type': 'mmrotate_plugin.DOTADataset', 'metainfo': metainfo}
    return Config({'test_dataloader': {'dataset': dataset}})


@pytest.mark.parametrize('palette', [None, 'random', [(1, 2, 3)], [(1, 2, 3)] * 30])
def test_as_many_colours_as_classes(palette):
    from mmdet.visualization.palette import get_palette

    given = {} if palette is None else {'palette': palette}
    meta = dataset_meta(config(classes=EIGHTEEN, **given), {'meta': {}})
    assert meta['classes'] == EIGHTEEN
    assert len(set(meta['palette'])) == len(EIGHTEEN)
    assert get_palette(meta['palette'], len(EIGHTEEN)) == meta['palette']
    runtime = {'test_dataloader': {'dataset': {'dataset': {'metainfo': {'classes': EIGHTEEN, **given}}}}}
    colour_datasets(runtime)
    assert runtime['test_dataloader']['dataset']['dataset']['metainfo']['palette'] == meta['palette']


def test_colours_that_suffice_are_kept():
    palette = [(0, 200, 255), (255, 0, 255)]
    assert dataset_meta(config(classes=('a', 'b'), palette=palette), {'meta': {}})['palette'] == palette
    noted = {'meta': {'dataset_meta': {'classes': ('x', 'y'), 'palette': [(1, 1, 1), (2, 2, 2)]}}}
    assert dataset_meta(config(), noted) == noted['meta']['dataset_meta']
    own = dataset_meta(config(), {'meta': {}})
    assert len(own['classes']) == len(own['palette']) == 15  # of the data set's class
    assert dataset_meta(Config({}), {'meta': {}}) == {}
