"""Metrics that hooks wait for, before the first validation."""

from types import SimpleNamespace

import pytest
from mmengine.evaluator import BaseMetric
from mmengine.hooks import EarlyStoppingHook

from mmrotate_plugin.engine.checks.metric_keys import keys_of, unknown_metric
from mmrotate_plugin.engine.hooks.checkpoint_hook import WholeCheckpointHook
from mmrotate_plugin.evaluation.metrics.uncertainty_metric import UncertaintyMetric

DATA = SimpleNamespace(metainfo={'classes': ('plane', 'ship')})


class Own(BaseMetric):
    default_prefix = 'own'

    def process(self, data_batch, data_samples):  # noqa: ARG002
        self.results += [len(sample['pred_instances']['labels']) for sample in data_samples]

    def compute_metrics(self, results):
        return {'count': sum(results), 'mean_score': 0.5}


class Closed(Own):
    def process(self, data_batch, data_samples):  # noqa: ARG002
        raise KeyError('something of its own')


def runner(*hooks, metrics, schedules=(), validates=True):
    evaluator = SimpleNamespace(metrics=metrics)
    loop = SimpleNamespace(evaluator=evaluator, dataloader=SimpleNamespace(dataset=DATA)) if validates else None
    return SimpleNamespace(hooks=list(hooks), val_loop=loop, param_schedulers=list(schedules))


def dota(**options):
    pytest.importorskip('mmrotate')
    from mmrotate.evaluation import DOTAMetric

    return DOTAMetric(**options)


@pytest.mark.parametrize(
    'options, keys',
    [({}, ['dota/mAP', 'dota/AP50']), (dict(iou_thrs=[0.5, 0.75]), ['dota/mAP', 'dota/AP50', 'dota/AP75']),
     (dict(prefix='mine'), ['mine/mAP', 'mine/AP50']), (dict(format_only=True, outfile_prefix='x'), [])],
)  # fmt: skip
def test_keys_of_mmrotates_metric(options, keys):
    assert keys_of([dota(metric='mAP', **options)], DATA) == (keys, [])


def test_keys_of_other_metrics_are_found_by_trial():
    keys, unknown = keys_of([Own(prefix=None), UncertaintyMetric()], DATA)
    assert keys[:2] == ['own/count', 'own/mean_score'] and not unknown
    assert len(keys) > 2 and all(key.startswith('uncertainty/') for key in keys[2:])
    metric = Own()
    assert keys_of([metric], DATA) and not metric.results  # a copy was tried
    closed = Closed()
    assert keys_of([closed], DATA) == ([], [closed])


@pytest.mark.parametrize(
    'save_best, close',
    [
        ('mAP', 'own2/mAP'),
        ('dota/mAP', 'own2/mAP'),
        ('own/cuont', 'own/count'),
        (['own/count', 'own2/map'], 'own2/mAP'),
    ],
)
def test_a_misspelt_save_best_is_refused_with_what_there_is(save_best, close):
    class Map(Own):
        def compute_metrics(self, results):  # noqa: ARG002
            return {'mAP': 1.0}

    hook = WholeCheckpointHook(save_best=save_best, rule='greater')
    wrong, said = unknown_metric(runner(hook, metrics=[Own(), Map(prefix='own2')]))
    assert not said and wrong.startswith("default_hooks.checkpoint.save_best='")
    assert f"gives own/count, own/mean_score, own2/mAP; did you mean '{close}'?" in wrong


def test_good_names_and_auto_pass():
    for name in ('own/count', ['own/count', 'own/mean_score'], 'auto', None):
        hook = WholeCheckpointHook(save_best=name, rule='greater')
        assert unknown_metric(runner(hook, metrics=[Own()])) == (None, [])
    closed = runner(WholeCheckpointHook(save_best='x', rule='less'), metrics=[Closed()])
    assert 'the results of Closed are known after the first validation only' in unknown_metric(closed)[1][0]


def test_monitors_share_the_check():
    stop = EarlyStoppingHook(monitor='mAP', rule='greater')
    wrong, _ = unknown_metric(runner(stop, metrics=[Own()]))
    assert wrong.startswith("custom_hooks: EarlyStoppingHook.monitor='mAP': the val_evaluator gives own/count")
    plateau = [dict(type='LinearLR'), dict(type='ReduceOnPlateauLR')]
    wrong, _ = unknown_metric(runner(metrics=[Own()], schedules=plateau))
    assert wrong.startswith("param_scheduler[1].monitor='loss': ")


def test_without_a_validation_it_has_no_effect():
    hook = WholeCheckpointHook(save_best='own/count', rule='greater')
    wrong, said = unknown_metric(runner(hook, metrics=[], validates=False))
    assert wrong is None and said == [
        "default_hooks.checkpoint.save_best='own/count' has no effect: there is no validation, whose results it "
        'waits for'
    ]


def test_a_misspelt_argument_of_the_checkpoints_is_refused():
    with pytest.raises(TypeError, match="save_bets='mAP' is no argument of checkpoints; did you mean 'save_best'"):
        WholeCheckpointHook(save_bets='mAP')
