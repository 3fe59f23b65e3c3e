"""Evaluation over angles: an oracle is perfect at every angle, and one whose boxes stay as they were is not."""

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData

pytest.importorskip('mmrotate')
from mmrotate_plugin.apis.angle_evaluation import Scenes, choose, metric_of, precision_over_angles, with_step
from mmrotate_plugin.apis.config import register_hosts
from mmrotate_plugin.utils.errors import UsageError

LABELS = [
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='mmrotate.ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
]
PACK = dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'ori_shape', 'img_shape'))
LOADER = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmrotate_plugin.SyntheticAerialDataset', length=3, size=97, seed=3, test_mode=True,
        pipeline=[*LABELS, PACK],
    ),
)  # fmt: skip
CFG = dict(model={}, test_dataloader=LOADER, test_evaluator=dict(type='mmrotate_plugin.DOTAMetric'))


@pytest.fixture(scope='module', autouse=True)
def hosts():
    register_hosts()


class Oracle:
    """Returns the objects as detections; with `frozen`, those of the first angle at which it saw the image."""

    def __init__(self, frozen=False):
        self.frozen, self.first = frozen, {}

    def test_step(self, batch):
        samples = batch['data_samples']
        for sample in samples:
            truth = sample.gt_instances
            boxes, labels = truth.bboxes.tensor, truth.labels
            if self.frozen:
                boxes, labels = self.first.setdefault(sample.img_id, (boxes, labels))
            sample.pred_instances = InstanceData(bboxes=boxes, labels=labels, scores=torch.ones(len(labels)))
        return samples


def results(model, how, degrees, **options):
    *_, last = precision_over_angles(model, Scenes(how, LOADER), degrees, metric_of(Config(CFG)), **options)
    return last


@pytest.mark.parametrize(
    ('how', 'degrees'), [('drawn', [0, 30, 90]), ('exact', [0, 90, 180, 270]), ('resampled', [0, 30, 45, 90, 170])]
)
def test_an_oracle_is_perfect_at_every_angle_and_a_frozen_one_collapses(how, degrees):
    found = results(Oracle(), how, degrees)
    assert [row['AP50'] for row in found['angles']] == [1.0] * len(degrees)
    assert found['summary']['AP50_95'] == dict(mean=1.0, worst=1.0, worst_at=0.0, best=1.0, spread=0.0, together=1.0)
    assert [row['degrees'] for row in found['angles']] == degrees and found['images'] == 3
    assert all(row['objects'] > 2 for row in found['angles'])
    frozen = results(Oracle(frozen=True), how, degrees)
    assert frozen['angles'][0]['AP50'] == 1.0
    assert max(row['AP50'] for row in frozen['angles'][1:]) < 0.5
    assert frozen['summary']['AP50']['worst'] < 0.3 and frozen['summary']['AP50']['together'] < 0.6


def test_resampled_angles_compare_the_same_objects():
    found = results(Oracle(), 'resampled', [0, 90, 180, 12, 77])
    assert len({row['objects'] for row in found['angles']}) == 1
    exact = results(Oracle(), 'exact', [0, 90])
    assert found['angles'][0]['objects'] < exact['angles'][0]['objects'], 'those beyond the disc do not count'


def test_mirrored_scenes_and_fewer_images():
    found = results(Oracle(), 'exact', [0, 90], mirrored=True, num_images=2)
    assert [(row['degrees'], row['mirrored']) for row in found['angles']] == [
        (0, False), (90, False), (0, True), (90, True),
    ]  # fmt: skip
    assert found['images'] == 2 and found['summary']['AP50']['worst'] == 1.0
    assert results(Oracle(frozen=True), 'exact', [0], mirrored=True)['angles'][1]['AP50'] < 0.5


def test_drawn_scenes_have_their_objects_at_the_angle():
    for degrees in (0, 30):
        dataset = Scenes('drawn', LOADER).at(degrees).dataset
        angles = [sample['data_samples'].gt_instances.bboxes.tensor[:, 4] for sample in dataset]
        off = (torch.cat(angles).rad2deg() - degrees) % 90
        assert torch.minimum(off, 90 - off).median() < 2, 'tanks have no angle, and parked cars are a little askew'


def test_how_scenes_get_to_an_angle():
    cfg = Config(CFG)
    assert choose(cfg, 'auto', [0, 90], mirrored=False).how == 'drawn'
    assert choose(cfg, 'auto', [0, 90], mirrored=True).how == 'exact'
    assert choose(cfg, 'turn', [0, 90], mirrored=False).how == 'exact'
    assert choose(cfg, 'turn', [0, 22.5], mirrored=False).how == 'resampled'
    wrapped = Config({**CFG, 'test_dataloader': {**LOADER, 'dataset': dict(type='ConcatDataset', datasets=[])}})
    assert choose(wrapped, 'auto', [0, 90], mirrored=False).how == 'exact'
    with pytest.raises(UsageError, match='--method draw needs a SyntheticAerialDataset'):
        choose(wrapped, 'draw', [0], mirrored=False)
    with pytest.raises(UsageError, match='--mirrored needs turned images: use --method turn'):
        choose(cfg, 'draw', [0], mirrored=True)
    with pytest.raises(UsageError, match='no test_dataloader'):
        choose(Config(dict(model={})), 'auto', [0], mirrored=False)


def test_the_turn_stands_behind_the_image_and_before_all_else():
    step = dict(type='mmrotate_plugin.TurnImage', degrees=90)
    load, resize = dict(type='mmdet.LoadImageFromFile'), dict(type='mmdet.Resize')
    assert with_step([load, resize, *LABELS], step) == [load, step, resize, *LABELS]
    assert with_step([resize], step) == [step, resize] and with_step([], step) == [step]
    both = dict(type='ConcatDataset', datasets=[LOADER['dataset'], LOADER['dataset']])
    loader = Scenes('exact', {**LOADER, 'dataset': both}).at(90)
    assert len(loader.dataset) == 6
    upright, turned = (Scenes('exact', LOADER).at(angle).dataset[0]['inputs'] for angle in (0, 90))
    assert torch.equal(loader.dataset[5]['inputs'], Scenes('exact', LOADER).at(90).dataset[2]['inputs'])
    assert torch.equal(turned, upright.rot90(1, (-2, -1)))


def test_without_ground_truth_there_is_no_curve():
    blind = {**LOADER, 'dataset': {**LOADER['dataset'], 'pipeline': [PACK]}}
    with pytest.raises(UsageError, match='no ground truth to evaluate with: its pipeline does not load annotations'):
        next(precision_over_angles(Oracle(), Scenes('exact', blind), [0], metric_of(Config(CFG))))


def test_the_metric_takes_the_options_of_the_config():
    area = Config({**CFG, 'test_evaluator': [dict(type='DOTAMetric', eval_mode='area', iou_thrs=[0.7])]})
    assert metric_of(area).eval_mode == 'area' and metric_of(Config(dict(model={}))).eval_mode == '11points'
