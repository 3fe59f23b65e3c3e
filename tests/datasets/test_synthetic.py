"""The embedded data set in the pipelines, samplers and metrics of mmdet and mmrotate."""

import multiprocessing.dummy

import cv2
import numpy as np
import pytest
import torch
from mmengine.fileio import get
from mmengine.registry import DATASETS as ROOT_DATASETS
from torch.utils.data import DataLoader

from mmrotate_plugin.datasets import SyntheticAerialDataset, draw_scene
from mmrotate_plugin.datasets.synthetic.dataset import draw_address
from mmrotate_plugin.datasets.synthetic.scenes import CLASSES
from mmrotate_plugin.registry import DATASETS

SMALL = {'length': 8, 'seed': 5, 'size': 97}


@pytest.fixture
def pipeline():
    pytest.importorskip('mmrotate')
    from mmdet.utils import register_all_modules as register_mmdet
    from mmrotate.utils import register_all_modules

    register_mmdet(init_default_scope=False)
    register_all_modules()  # under mmdet's scope, mmengine does not look for mmcv's transforms by mmdet's name
    return [
        dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
        dict(type='mmrotate.ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
        dict(type='mmdet.Resize', scale=(97, 97), keep_ratio=True),
        dict(type='mmdet.RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),
        dict(type='mmdet.PackDetInputs'),
    ]


def test_sample_is_the_scene():
    sample = SyntheticAerialDataset(**SMALL)[3]
    scene = draw_scene(5, 3, size=97)
    np.testing.assert_array_equal(sample['img'], scene.image)
    assert sample['img_shape'] == sample['ori_shape'] == (97, 97)
    assert (sample['width'], sample['height']) == (97, 97)
    assert sample['img_id'] == 'synthetic-5-3'
    assert sample['img_path'].endswith('/synthetic-5-3.png')
    np.testing.assert_allclose([i['bbox'] for i in sample['instances']], scene.polygons.reshape(-1, 8))
    assert [i['bbox_label'] for i in sample['instances']] == scene.labels.tolist()
    assert all(i['ignore_flag'] == 0 for i in sample['instances'])


def test_registered_in_both_scopes():
    for registry, name in (
        (DATASETS, 'SyntheticAerialDataset'),
        (ROOT_DATASETS, 'SyntheticAerialDataset'),
        (ROOT_DATASETS, 'mmrotate_plugin.SyntheticAerialDataset'),
    ):
        assert registry.get(name) is SyntheticAerialDataset


def test_address_of_an_image_can_be_read():
    options = {'size': (120, 64), 'num_objects': 4, 'scale': (0.5, 0.75)}
    sample = SyntheticAerialDataset(length=2, seed=9, **options)[1]
    image = cv2.imdecode(np.frombuffer(get(sample['img_path']), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(image, sample['img'])
    with pytest.raises(ValueError, match='synthetic://nonsense'):
        get('synthetic://nonsense.png')


@pytest.mark.parametrize('serialize', [True, False])
def test_cache_serves_copies_of_the_same_pixels(serialize):
    dataset = SyntheticAerialDataset(cache=True, serialize_data=serialize, **SMALL)
    first = dataset[0]
    first['img'][:] = 0
    first['instances'].clear()
    again = dataset[0]
    np.testing.assert_array_equal(again['img'], draw_scene(5, 0, size=97).image)
    assert again['instances']


def test_subsets_keep_their_scenes():
    full = SyntheticAerialDataset(**SMALL)
    part = SyntheticAerialDataset(indices=[6, 2], **SMALL)
    assert [part[i]['img_id'] for i in range(len(part))] == ['synthetic-5-6', 'synthetic-5-2']
    np.testing.assert_array_equal(part[1]['img'], full[2]['img'])
    assert len(SyntheticAerialDataset(indices=3, **SMALL)) == 3
    assert full.get_subset([4])[0]['img_id'] == 'synthetic-5-4'
    lazy = SyntheticAerialDataset(lazy_init=True, **SMALL)
    assert not lazy._fully_initialized
    assert len(lazy) == 8


def test_cat_ids_and_class_subsets():
    full = SyntheticAerialDataset(**SMALL)
    part = SyntheticAerialDataset(metainfo={'classes': ('ship', 'plane')}, **SMALL)
    new = {CLASSES.index('ship'): 0, CLASSES.index('plane'): 1}
    for i in range(8):
        assert part.get_cat_ids(i) == [new[label] for label in full.get_cat_ids(i) if label in new]
    with pytest.raises(ValueError, match='zeppelin'):
        SyntheticAerialDataset(metainfo={'classes': ('zeppelin',)}, **SMALL)


def test_scenes_without_objects_can_be_left_out():
    only_planes = {'metainfo': {'classes': ('plane',)}, 'length': 30, 'seed': 1, 'size': 97}
    keep = SyntheticAerialDataset(**only_planes)
    train = SyntheticAerialDataset(filter_cfg={'filter_empty_gt': True}, **only_planes)
    test = SyntheticAerialDataset(filter_cfg={'filter_empty_gt': True}, test_mode=True, **only_planes)
    filled = sum(bool(keep.get_cat_ids(i)) for i in range(30))
    assert len(train) == filled < len(keep) == len(test) == 30
    with pytest.raises(ValueError, match='leaves none of 4 images'):
        SyntheticAerialDataset(length=4, num_objects=0, filter_cfg={'filter_empty_gt': True})
    with pytest.raises(ValueError, match='max_size'):
        SyntheticAerialDataset(length=4, filter_cfg={'max_size': 32})


@pytest.mark.parametrize(
    'options, words',
    [
        ({'length': 0}, 'length=0'),
        ({'ann_file': 'labels.json'}, "ann_file='labels.json'"),
        ({'data_root': 'data'}, "data_root='data'"),
        ({'size': 8}, 'size='),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        SyntheticAerialDataset(**options)


def test_pipeline_of_mmrotate(pipeline):
    from mmrotate.structures.bbox import RotatedBoxes

    dataset = SyntheticAerialDataset(pipeline=pipeline, **SMALL)
    for i in range(8):
        sample = dataset[i]
        instances = sample['data_samples'].gt_instances
        assert sample['inputs'].shape == (3, 97, 97)
        assert isinstance(instances.bboxes, RotatedBoxes)
        rboxes = draw_scene(5, i, size=97).rboxes
        assert len(instances) == len(rboxes)
        # flips keep areas, and the box that a sample reports is the one that the scene has
        np.testing.assert_allclose(instances.bboxes.areas, rboxes[:, 2] * rboxes[:, 3], rtol=1e-3)


def test_loading_the_image_gives_the_same_sample(pipeline):
    loading = [dict(type='mmdet.LoadImageFromFile'), pipeline[0], pipeline[1], pipeline[-1]]
    with_file = SyntheticAerialDataset(pipeline=loading, **SMALL)[2]
    without = SyntheticAerialDataset(pipeline=loading[1:], **SMALL)[2]
    torch.testing.assert_close(with_file['inputs'], without['inputs'], rtol=0, atol=0)


def test_scene_without_objects_passes_the_pipeline(pipeline):
    sample = SyntheticAerialDataset(length=1, num_objects=0, pipeline=pipeline)[0]
    assert sample['data_samples'].gt_instances.bboxes.tensor.shape == (0, 5)


def test_workers_and_samplers(pipeline):
    from mmdet.datasets.samplers import AspectRatioBatchSampler
    from mmengine.dataset import DefaultSampler, pseudo_collate

    dataset = SyntheticAerialDataset(pipeline=[p for p in pipeline if 'Flip' not in p['type']], cache=True, **SMALL)
    sampler = DefaultSampler(dataset, shuffle=True, seed=0)
    batches = AspectRatioBatchSampler(sampler, batch_size=3, drop_last=False)
    loader = DataLoader(dataset, batch_sampler=batches, num_workers=2, collate_fn=pseudo_collate)
    seen = {}
    for batch in loader:
        for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
            seen[sample.img_id] = image
    assert len(seen) == 8
    for name, image in seen.items():
        expected = draw_scene(5, int(name.rsplit('-')[-1]), size=97).image
        np.testing.assert_array_equal(image.permute(1, 2, 0), expected)


def test_perfect_predictions_reach_full_map(pipeline, monkeypatch):
    import mmrotate.evaluation.functional.mean_ap as mean_ap
    from mmengine.structures import InstanceData
    from mmrotate.evaluation import DOTAMetric

    # four fresh interpreters per call would each import torch and mmrotate
    monkeypatch.setattr(mean_ap, 'get_context', lambda _: multiprocessing.dummy)
    dataset = SyntheticAerialDataset(pipeline=[*pipeline[:2], pipeline[-1]], test_mode=True, **SMALL)

    def score(shift):
        metric = DOTAMetric()
        metric.dataset_meta = dataset.metainfo
        for i in range(len(dataset)):
            sample = dataset[i]['data_samples']
            truth = sample.gt_instances
            boxes = truth.bboxes.tensor + torch.tensor([shift, 0, 0, 0, 0.0])
            sample.pred_instances = InstanceData(bboxes=boxes, scores=torch.ones(len(boxes)), labels=truth.labels)
            truth.bboxes = truth.bboxes.tensor
            sample.ignored_instances.bboxes = sample.ignored_instances.bboxes.tensor
            metric.process({}, [sample.to_dict()])
        return metric.evaluate(len(dataset))['dota/mAP']

    present = {label for i in range(len(dataset)) for label in dataset.get_cat_ids(i)}
    assert score(0.0) == pytest.approx(len(present) / len(CLASSES), abs=1e-3)
    assert score(40.0) < 0.1


def test_angles_bound_what_is_drawn():
    def headings(**options):
        dataset = SyntheticAerialDataset(length=12, seed=3, **options)
        boxes = [np.reshape(i['bbox'], (4, 2)) for k in range(12) for i in dataset.get_data_info(k)['instances']]
        ahead = np.array([box[1] - box[0] for box in boxes])
        return np.degrees(np.arctan2(ahead[:, 1], ahead[:, 0])) % 90, dataset

    def from_axes(angles):
        return np.minimum(angles, 90 - angles)

    upright, dataset = headings(angles=(0, 0))
    assert (from_axes(upright) < 5).mean() > 0.8, 'parked not quite straight, some aeroplanes askew'
    diagonal, _ = headings(angles=(45, 45))
    assert (from_axes(diagonal) > 40).mean() > 0.8
    assert 0.05 < (from_axes(headings()[0]) < 5).mean() < 0.5
    info = dataset.get_data_info(0)
    assert '/angles0.0to0.0/' in info['img_path']
    assert not np.array_equal(
        draw_address(info['img_path']), draw_address(info['img_path'].replace('0.0to0.0', '45.0to45.0'))
    )
    with pytest.raises(ValueError, match='angles='):
        SyntheticAerialDataset(angles=(10, 0)).get_data_info(0)


def test_noise_is_part_of_the_address():
    dataset = SyntheticAerialDataset(length=2, size=97, seed=3, noise_std=[0, 1e-5])
    info = dataset.get_data_info(1)
    assert '/noise-0.0-1e-05/' in info['img_path']
    loud = SyntheticAerialDataset(length=2, size=97, seed=3, noise_std=9).get_data_info(1)
    expected = draw_scene(3, 1, size=97, noise_std=9).image
    assert np.array_equal(draw_address(loud['img_path']), expected) and loud['instances'] == info['instances']
    turned = SyntheticAerialDataset(length=1, size=97, noise_std=9, angles=(45, 45)).get_data_info(0)
    assert np.array_equal(
        draw_address(turned['img_path']), draw_scene(0, 0, size=97, noise_std=9, angles=(45, 45)).image
    )
    with pytest.raises(ValueError, match='noise_std='):
        SyntheticAerialDataset(noise_std=-1)
