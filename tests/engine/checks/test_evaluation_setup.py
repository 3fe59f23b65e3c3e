from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import Evaluator

from mmrotate_plugin.apis.runner import threaded_evaluation
from mmrotate_plugin.engine.checks import evaluation_setup
from mmrotate_plugin.engine.checks.evaluation_setup import TruthGuard, prepare_evaluation, why_no_truth
from mmrotate_plugin.evaluation import DOTAMetric, EvaluationError
from mmrotate_plugin.utils import messages
from mmrotate_plugin.utils.errors import UsageError

BOX = [10.0, 10, 30, 30]


class Data:
    """As much of a data set of mmengine as is asked."""

    def __init__(self, *instances, ids=None, steps=('LoadAnnotations',), **fields):
        self.images = [dict(img_id=(ids or range(99))[i], instances=list(one)) for i, one in enumerate(instances)]
        kinds = [type(name, (), {'__module__': f'mmdet.{name}' if name[0] != '_' else 'mine'}) for name in steps]
        self.pipeline = SimpleNamespace(transforms=[kind() for kind in kinds])
        self.__dict__.update(fields)

    def __len__(self):
        return len(self.images)

    def get_data_info(self, i):
        return self.images[i]


EASY, HARD = dict(ignore_flag=0), dict(ignore_flag=1)


@pytest.mark.parametrize(
    'data, reason',
    [
        (Data([EASY], []), None),
        (Data([], []), '2 images have no objects'),
        (Data([], ann_file=''), "1 images have no objects; ann_file is ''"),
        (Data([HARD], [HARD, HARD]), 'all 3 objects are ignored'),
        (Data([HARD], [EASY]), None),
        (Data([EASY], steps=['LoadImageFromFile', 'Resize']), 'its pipeline does not load annotations'),
        (Data([EASY], steps=['LoadImageFromFile', '_MyLabels']), None),
        (SimpleNamespace(datasets=[Data([EASY])], get_data_info=lambda _: {}, __len__=lambda: 1), None),
    ],
)
def test_why_there_is_no_truth(data, reason):
    if isinstance(data, Data):
        found = why_no_truth(data)
        assert found == reason or (found or '').startswith(reason or 'never')


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(messages, 'print_log', lambda text, **_: lines.append(text))
    return lines


def loop(data, *metrics, classes=('ship',)):
    evaluator = Evaluator(list(metrics))
    evaluator.dataset_meta = dict(classes=classes)
    return SimpleNamespace(dataloader=SimpleNamespace(dataset=data), evaluator=evaluator)


def sample(labelled=True, objects=1, ignored=0, name=0, boxes=BOX):
    def tensors(count):
        return dict(bboxes=torch.tensor([boxes] * count).reshape(-1, len(boxes)), labels=torch.zeros(count).long())

    pred = dict(tensors(1), scores=torch.tensor([0.9]))
    truth = dict(gt_instances=tensors(objects), ignored_instances=tensors(ignored)) if labelled else {}
    meta = dict(img_id=name, ori_shape=(50, 50))
    return {**meta, 'pred_instances': pred, **({'gt_instances': {}, 'ignored_instances': {}} | truth)}


def test_hosts_metrics_give_no_number_without_truth(said, tmp_path):
    pytest.importorskip('mmdet')
    from mmdet.evaluation import CocoMetric, VOCMetric

    for samples in ([sample(labelled=False)] * 3, [sample(objects=0)] * 3, [sample(objects=0, ignored=1)] * 3):
        for make in (VOCMetric, lambda: CocoMetric(outfile_prefix=str(tmp_path / 'coco'))):
            metric = make()
            here = loop(Data([]), metric)
            prepare_evaluation(here, 'test')
            assert isinstance(here.evaluator.metrics[0], type(metric))
            if type(metric) is CocoMetric and samples[0]['gt_instances']:
                samples = [{**one, 'instances': []} for one in samples]
            here.evaluator.process(samples)
            assert here.evaluator.evaluate(3) == {}
            del said[0]
            assert said.pop().startswith(f'{type(metric).__name__}: no ground truth: ') and not said
    assert (tmp_path / 'coco.bbox.json').is_file()


def test_labelled_images_alone_count(said):
    pytest.importorskip('mmdet')
    from mmdet.evaluation import VOCMetric

    here = loop(Data([EASY]), VOCMetric())
    prepare_evaluation(here, 'test')
    prepare_evaluation(here, 'test')  # guarded once
    here.evaluator.process([sample(), sample(labelled=False), sample()])
    assert here.evaluator.evaluate(3)['pascal_voc/mAP'] == pytest.approx(1)
    assert said == ['VOCMetric: 1 of 3 images have no labels and do not count']


def test_rotated_metrics_of_mmrotate(said, tmp_path):
    pytest.importorskip('mmrotate')
    from mmrotate.evaluation import DOTAMetric as Theirs

    box = [20.0, 20, 10, 6, 0.2]
    here = loop(Data([]), Theirs(outfile_prefix=str(tmp_path / 'a')))
    prepare_evaluation(here, 'test')
    here.evaluator.process([sample(labelled=False, boxes=box)] * 2)
    with threaded_evaluation():
        assert here.evaluator.evaluate(2) == {} and (tmp_path / 'a.bbox.json').is_file()
    with pytest.raises(EvaluationError, match='scale_ranges: .*mmrotate_plugin.DOTAMetric'):
        prepare_evaluation(loop(Data([EASY]), Theirs(scale_ranges=[(0, 32)])), 'test')
    merging = Theirs(merge_patches=True, outfile_prefix=str(tmp_path / 'sub'))
    for name, text in (('P1__v2__1__0___0', "would merge it as 'P1'"), ('P1__0.5__0___0', 'leave out the scale')):
        with pytest.raises(EvaluationError, match=text):
            prepare_evaluation(loop(Data([EASY], ids=[name]), merging), 'test')
    prepare_evaluation(loop(Data([EASY], ids=['P1__1__0___0']), merging), 'test')
    assert len(said) == 2


def test_submissions_are_checked_before_the_first_image(tmp_path):
    metric = DOTAMetric(merge_patches=True, outfile_prefix=str(tmp_path / 'sub'))
    prepare_evaluation(loop(Data([EASY], ids=['P1__1__0___0']), metric), 'test')
    with pytest.raises(EvaluationError, match="image 'P1': the name does not say"):
        prepare_evaluation(loop(Data([EASY], ids=['P1']), metric), 'test')
    with pytest.raises(EvaluationError, match="class 'car/van'"):
        prepare_evaluation(loop(Data([EASY], ids=['P1__1__0___0']), metric, classes=('car/van',)), 'test')
    (tmp_path / 'sub').mkdir()
    with pytest.raises(EvaluationError, match='exists already'):
        prepare_evaluation(loop(Data([EASY], ids=['P1__1__0___0']), metric), 'test')


def test_save_best_needs_ground_truth(said):
    here = loop(Data([]), DOTAMetric())
    prepare_evaluation(here, 'val')
    assert said == ['val_dataloader has no ground truth: 1 images have no objects. DOTAMetric will give no number']
    with pytest.raises(UsageError, match="val_dataloader has no ground truth.*save_best='dota/mAP' has nothing"):
        prepare_evaluation(here, 'val', save_best='dota/mAP')


def test_a_metric_that_wants_something_else_ends_in_one_line():
    pytest.importorskip('mmdet')
    from mmdet.evaluation import CocoMetric

    metric = CocoMetric()
    TruthGuard(metric)
    with pytest.raises(UsageError, match='CocoMetric cannot judge image 0: AssertionError: ground truth is requir'):
        metric.process(None, [sample()])


def test_what_is_no_detection_passes():
    seen = []
    metric = SimpleNamespace(process=lambda _, s: seen.extend(s), evaluate=lambda _: dict(accuracy=1.0), results=[])
    TruthGuard(metric)
    metric.process(None, [dict(gt_label=1)])
    assert seen == [dict(gt_label=1)] and metric.evaluate(1) == dict(accuracy=1.0)
    assert not evaluation_setup.judges_detections(metric)
