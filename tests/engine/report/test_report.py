"""The report of a run: its files, its page in a browser, and that it never spoils a run."""

import html
import json
import pickle
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrotate_plugin.engine import ReportHook
from mmrotate_plugin.engine.report import Evaluation, load_detections, read_scalars, save_detections, write_report
from mmrotate_plugin.engine.report.results_pickle import load_results
from mmrotate_plugin.utils.errors import UsageError

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
CLASSES = ('<b>ship</b> & boat', 'plane')


def images(number=3, std=True):
    rng = np.random.default_rng(0)
    found = []
    for i in range(number):
        truth = np.column_stack([rng.uniform(20, 180, (5, 2)), rng.uniform(15, 50, (5, 2)), rng.uniform(-1.5, 1.5, 5)])
        labels = rng.integers(0, 2, 5)
        boxes = truth[:4] + rng.normal(0, 0.6, (4, 5)) * [1, 1, 1, 1, 0.02]
        found.append(
            dict(
                img_id=f'image {i}.png',
                bboxes=boxes,
                scores=rng.random(4),
                labels=labels[:4],
                bboxes_std=np.full((4, 5), 0.5) if std else None,
                gt_bboxes=truth,
                gt_labels=labels,
                gt_ignored=np.arange(5) == (4 if i else 5),  # the first image lacks one
            )
        )
    return found


def write_scalars(folder, name, records, end=''):
    file = folder / name / 'vis_data/scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('\n'.join(map(json.dumps, records)) + '\n' + end)


def training(first, last, loss=2.0):
    return [
        {'loss': loss / i, 'lr': 0.1 / i, 'time': 0.5, 'epoch': 1, 'iter': i, 'step': i} for i in range(first, last)
    ]


@pytest.fixture(scope='module')
def reported(tmp_path_factory) -> Path:
    """A work directory with a report of all parts."""
    folder = tmp_path_factory.mktemp('run')
    records = [{'equivariance/stage3_90': 1e-6, 'step': 0}, *training(1, 40), {'dota/mAP': 0.5, 'time': 0.1, 'step': 1}]
    write_scalars(folder, '20260101_000000', records)
    rows = [dict(degrees=d, mirrored=False, AP50=0.5, AP75=None, AP50_95=0.3) for d in (0, 45)]
    summary = {key: dict(mean=0.5, worst=0.4, spread=0.1, together=0.5) for key in ('AP50', 'AP75', 'AP50_95')}
    (folder / 'angles.json').write_text(json.dumps(dict(angles=rows, summary=summary, checkpoint='a.pth')))
    maps = {'stage3': dict(group='C8', exact=1e-7, at_45=0.1, mean=0.05)}
    (folder / 'equivariance.json').write_text(json.dumps(dict(maps=maps, checkpoint='a.pth')))
    facts = dict(model='FCOS', claim='equivariance under C8', parameters=123456, macs=10**9, config='x = 1\n' * 400)
    facts |= dict(versions={'torch': '2'}, notes=[], written='now')

    def picture(index, _score_thr):
        return np.full((60, 900, 3), 40 * index, np.uint8)

    evaluation = Evaluation(images(), CLASSES, facts=dict(checkpoint='a.pth', seconds_per_image=0.1), picture=picture)
    write_report(folder, {'test': evaluation}, facts=facts, fresh=True)
    return folder


def test_page_figures_and_numbers_are_there(reported):
    page = (reported / 'report.html').read_text()
    assert '&lt;b&gt;ship&lt;/b&gt; &amp; boat' in page and '<b>ship' not in page
    for text in (
        'Training',
        'Test',
        'mAP over the angle',
        'Equivariance error',
        'best threshold',
        'x = 1',
    ):
        assert text in page
    numbers = json.loads((reported / 'report/report.json').read_text())
    assert set(numbers['evaluations']) == {'test'} and numbers['training']['val']['dota/mAP']['step'] == [39]
    found = {file.name for file in (reported / 'report').glob('test_*')}
    kinds = ('precision_recall', 'f1', 'confusion', 'scores', 'boxes', 'by_size', 'by_aspect_ratio', 'by_angle')
    assert {f'test_{kind}.png' for kind in kinds} <= found and any(name.startswith('test_worst_') for name in found)
    assert {'training_loss.png', 'training_lr.png', 'training_map.png', 'training_equivariance.png'} <= {
        file.name for file in (reported / 'report').iterdir()
    }


@pytest.mark.skipif(CHROMIUM is None, reason='no chromium here: the page is opened by no browser')
@pytest.mark.parametrize('width', [400, 1600])
def test_a_browser_opens_the_page(reported, tmp_path, width):
    page = (reported / 'report.html').read_text()
    assert '<script' not in page
    # a headless window is 500 pixels wide at least, a frame in it need not be
    fetched = "w.performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length"
    numbers = f'[w.innerWidth, w.document.documentElement.scrollWidth, {fetched}].join()'
    script = (
        f"onload = () => {{ const w = document.querySelector('iframe').contentWindow; document.title = {numbers} }}"
    )
    for name, more in (
        ('good', ''),
        (
            'bad',
            '<div style="width:2000px">x</div><img src="http://127.0.0.1:9/x.png"><script>console.error(1)</script>',
        ),
    ):
        inside = html.escape(page.replace('</body>', f'{more}</body>'))
        frame = f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{inside}"></iframe>'
        (tmp_path / f'{name}.html').write_text(
            f'<!doctype html><meta charset="utf-8"><title></title>{frame}<script>{script}</script>'
        )
        words = [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run']
        words += ['--disable-background-networking', '--disable-component-update', '--disable-sync']
        words += ['--hide-scrollbars', '--enable-logging=stderr', '--window-size=1700,1000', '--dump-dom']
        words += [f'--user-data-dir={tmp_path / name}', f'--log-net-log={tmp_path / name}.json']
        done = subprocess.run(
            [*words, (tmp_path / f'{name}.html').as_uri()], capture_output=True, text=True, timeout=120, check=False
        )
        title = done.stdout.partition('<title>')[2].partition('</title>')[0]
        inner, needed, fetches = map(int, title.split(','))
        hosts = set(re.findall(r'"url":"\w+://([^/"]+)', (tmp_path / f'{name}.json').read_text(errors='replace')))
        hosts = {host for host in hosts if not host.endswith(('google.com', 'googleapis.com'))}  # the browser's own
        wrong = ('CONSOLE' in done.stderr, fetches > 0, bool(hosts), needed > inner)
        assert inner == width and wrong == ((False,) * 4 if name == 'good' else (True,) * 4), (hosts, done.stderr)


def test_scalars_of_resumed_runs_are_joined_and_those_of_new_ones_replaced(tmp_path):
    write_scalars(tmp_path, '20260101_000000', [*training(1, 6), {'dota/mAP': 0.1, 'step': 1}], end='{"loss": 1, "it')
    write_scalars(tmp_path, '20260102_000000', [*training(4, 9, loss=9.0), {'dota/mAP': 0.2, 'step': 2}])
    write_scalars(tmp_path, '20260103_000000', [{'dota/mAP': 0.9, 'step': 0}])  # a test
    found = read_scalars(tmp_path)
    assert found['train']['loss']['step'] == list(range(1, 9))
    assert found['train']['loss']['value'][2:4] == [2 / 3, 9 / 4]
    assert found['val']['dota/mAP'] == {'step': [8], 'value': [0.2]}  # the first one came at iteration 5, not before 4
    write_scalars(tmp_path, '20260104_000000', training(1, 3))
    assert read_scalars(tmp_path)['train']['loss']['step'] == [1, 2] and not read_scalars(tmp_path)['val']


@pytest.mark.parametrize('std', [True, False])
def test_detections_come_back(tmp_path, std):
    before = [*images(2, std), {**images(1, std)[0], **dict.fromkeys(('bboxes', 'bboxes_std'), np.zeros((0, 5)))}]
    before[2] |= dict(scores=np.zeros(0), labels=np.zeros(0))
    file = save_detections(tmp_path / 'a b.npz', before, CLASSES, eval_mode='area')
    after, classes, facts = load_detections(file)
    assert tuple(classes) == CLASSES and facts == {'eval_mode': 'area'} and len(after) == 3
    for a, b in zip(before, after, strict=True):
        for name in a:
            assert name == 'bboxes_std' and not std or np.array_equal(a[name], b[name]), name
    (tmp_path / 'x.npz').write_bytes(file.read_bytes()[:-200])
    (tmp_path / 'y.npz').write_text('no')
    for name in ('x.npz', 'y.npz', 'nowhere.npz', '.'):
        with pytest.raises(UsageError, match='detections|exist|folder'):
            load_detections(tmp_path / name)


def test_predictions_of_test_out_are_read_and_code_in_them_is_not_run(tmp_path):
    def instances(**values):
        return {name: torch.tensor(value) for name, value in values.items()}

    pred = instances(bboxes=[[5.0, 5, 4, 2, 0]], scores=[0.5], labels=[1])
    truth = instances(bboxes=[[5.0, 5, 4, 2, 0]], labels=[1])
    sample = dict(pred_instances=pred, gt_instances=truth, img_path='/a/b.png', img_shape=torch.Size((9, 9)))
    file = tmp_path / 'p.pkl'
    file.write_bytes(pickle.dumps([sample]))
    (image,), classes = load_results(file)
    assert image['img_id'] == 'b.png' and classes == ['class 0', 'class 1'] and image['bboxes'].shape == (1, 5)
    with pytest.raises(UsageError, match='--classes names 1'):
        load_results(file, ['a'])

    class Evil:
        def __reduce__(self):
            return (print, ('run',))

    for data, said in (
        (pickle.dumps(Evil()), 'builtins.print'),
        (b'no', 'no file of test'),
        (pickle.dumps([]), 'no image'),
    ):
        file.write_bytes(data)
        with pytest.raises(UsageError, match=said):
            load_results(file)


class Runner:
    """What the hook asks of a runner."""

    def __init__(self, folder):
        self.work_dir, self.warnings = str(folder), []
        self.logger = type('Logger', (), {'warning': lambda _, text: self.warnings.append(text), 'info': print})()


def test_a_failure_is_a_warning(tmp_path):
    runner, hook = Runner(tmp_path), ReportHook()
    sample = type('Sample', (), {'pred_instances': 1, 'to_dict': lambda _: {}['no']})()
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, {}, [sample])
    hook.after_train(runner)
    assert runner.warnings == ['no report was written (KeyError: no); the results of the run are complete']
    hook.after_train(runner)  # has no model
    assert 'AttributeError' in runner.warnings[1] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('options', [dict(iou_thr=0), dict(score_thr=2), dict(worst=-1), dict(worst=1.5)])
def test_arguments_out_of_range(options):
    (name,) = options
    with pytest.raises(ValueError, match=f'{name}='):
        ReportHook(**options)
