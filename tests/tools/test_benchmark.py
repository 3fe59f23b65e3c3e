"""The benchmark runs on small networks, refuses to compare what is not alike, and reports what it measured.

No test here asserts a time: clocks of shared machines lie.
"""

import json
import subprocess
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.apis.benchmark.contestants import MEASURES, find
from mmrotate_plugin.apis.benchmark.likeness import maps
from mmrotate_plugin.apis.benchmark.measure import Settings
from mmrotate_plugin.apis.benchmark.memory import kept_for_backward
from mmrotate_plugin.apis.benchmark.new_processes import command, environment
from mmrotate_plugin.apis.benchmark.timing import detection_runs, interleave, pairs_of, rows_of
from mmrotate_plugin.equivariant import export
from mmrotate_plugin.models import ReResNet
from mmrotate_plugin.visualization.plots.benchmark import MARKERS, as_text, quantity, write_into

pytest.importorskip('mmdet')
ROOT = Path(__file__).resolve().parents[2]
SMALL = ['--quick', '--sizes', '33', '--rounds', '1']


@pytest.fixture
def children(monkeypatch):
    """Processes that measure nothing; each takes seconds to import torch. `test_a_process_of_its_own` runs one."""
    started = []

    def run(command, **options):
        started.append((command, options))
        words = dict(zip(command[2::2], command[3::2], strict=False))
        measured = {'first': 0.25, 'peak': 3 * 2**20, 'kept': 2 * 2**20}
        if words['--network'] != 'plain':
            measured = {'first': 0.5, 'peak': 4 * 2**20, 'kept': 3 * 2**20}
        text = json.dumps({'import_e2cnn': 1.0, 'import': 2.0, **measured})
        return SimpleNamespace(returncode=0, stdout=f'a warning\n{text}\n', stderr='')

    monkeypatch.setattr(subprocess, 'run', run)
    return started


@pytest.fixture
def bench(tool, tmp_path, capsys, children):  # noqa: ARG001  no test here waits for processes
    """Run the tool; returns its status, what it printed on either stream, and the report."""

    def run(*args):
        status = tool('benchmark')([*args, '--out', str(tmp_path / 'out')])
        printed = capsys.readouterr()
        report = tmp_path / 'out/benchmark.json'
        return status, printed.out, printed.err, json.loads(report.read_text()) if report.exists() else None

    return run


def test_quick_run_reports_everything(bench, children, tmp_path):
    page = tmp_path / 'page.md'
    start, end = (marker.format('cpu') for marker in MARKERS)
    page.write_text(f'# Title\n\n{start}\nold\n{end}\n\nMore.\n')
    status, out, err, report = bench('--quick', '--widths', '8', '16', '--markdown', str(page))
    assert status == 0, err
    expected = {('build, first', 'C8'), ('build, later', 'C8'), ('build, width 8 to 16', 'C8')}
    expected |= {(f'train 2x{size}x{size}', 'C8') for size in (33, 65)}
    others = ('folded', 'C8', 'exported-C8', 'fourier-C8')
    expected |= {(f'eval 1x{size}x{size}', name) for size in (33, 65) for name in others}
    expected |= {('memory, peak 2x65x65', 'C8'), ('memory, kept 2x65x65', 'C8')}
    expected |= {('checkpoint, train mode', 'C8'), *(('checkpoint, eval mode', name) for name in others)}
    rows = report['rows']
    assert {(row['measure'], row['network']) for row in rows if row['baseline'] == 'plain'} == expected
    like = {(row['measure'], row['network']) for row in rows if row['baseline'] == 'folded'}
    assert like == {(f'eval 1x{s}x{s}', name) for s in (33, 65) for name in ('exported-C8', 'fourier-C8')}
    for row in rows:
        ratios = [b / a for a, b in row['rounds']]
        assert row['ratio'] == pytest.approx(np.median(ratios)) and min(ratios) > 0
        assert f'{row["ratio"]:.3f}' in out
        if row['measure'].startswith(('build, later', 'train', 'eval')):
            assert len(ratios) == 2
    first = next(row for row in rows if row['measure'] == 'build, first')
    assert (first['baseline_value'], first['value'], first['ratio']) == (0.25, 0.5, 2)

    assert set(report['errors']) == {'folded', 'exported-C8', 'fourier-C8'} and max(report['errors'].values()) < 1e-5
    assert {'torch', 'mmcv', 'mmdet', 'e2cnn', 'numpy', 'python'} <= set(report['versions'])
    assert report['threads'] == 1 and report['command'] == 'python tools/benchmark.py --widths 8 16 --quick'
    assert str(tmp_path) not in json.dumps(report)
    picture = cv2.imread(str(tmp_path / 'out/benchmark.png'))
    assert picture is not None and min(picture.shape[:2]) > 500
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
        f'benchmark.{kind}' for kind in ('json', 'md', 'png')
    ]
    table = (tmp_path / 'out/benchmark.md').read_text()
    assert page.read_text() == f'# Title\n\n{start}\n\n{table}\n{end}\n\nMore.\n'
    assert report['date'] in table and report['command'] in table and 'not in the first build' in table

    assert [command[3] for command, _ in children] == ['plain', 'C8']
    assert all(options['env']['OMP_NUM_THREADS'] == '1' for _, options in children)


def inexact(net, fourier=False, **options):
    plain = export(net, **options)
    if fourier:
        with torch.no_grad():
            plain.layer4[1].conv2.weight *= 1.001
    return plain


def not_finite(net, **_):
    net = export(net)
    net.layer4.register_forward_hook(lambda *args: args[2] * float('nan'))
    return net


def three_stages(net, **_):
    net = export(net)
    net.out_indices = (0, 1, 2)
    return net


def half_as_wide(depth, base_channels, **options):
    return ReResNet(depth, base_channels=base_channels // 2, **options)


def other_gradients(*args, with_cp=False, **options):
    """With `with_cp`, a network with the same maps, whose stem and first stage get twice their gradients."""
    net = ReResNet(*args, **options)
    if with_cp:

        def double(_module, _inputs, y):
            if y.requires_grad:
                y.register_hook(lambda gradient: 2 * gradient)

        net.layer1.register_forward_hook(double)
    return net


@pytest.mark.parametrize(
    ('networks', 'place', 'change', 'text'),
    [
        ('fourier-C8', 'equivariant.export', inexact, 'fourier-C8 is claimed to be equal to C8'),
        ('exported-C8', 'equivariant.export', not_finite, 'exported-C8 is claimed to be equal to C8'),
        ('exported-C8', 'equivariant.export', three_stages, 'the relative errors of its maps are inf'),
        ('C8', 'registry.MODELS.get', lambda _: half_as_wide, 'C8 returns maps of (C, H, W) = [(8,'),
        ('C8+cp', 'registry.MODELS.get', lambda _: other_gradients, 'C8+cp is claimed to be equal to C8'),
    ],
)
def test_what_is_not_alike_is_not_compared(bench, monkeypatch, networks, place, change, text):
    options = [*SMALL, '--networks', f'plain,{networks}', '--baseline', 'plain']
    status, _, err, report = bench(*options, '--measures', 'eval', 'train')
    assert status == 0 and report['rows'], err
    monkeypatch.setattr(f'mmrotate_plugin.{place}', change)
    status, out, err, _ = bench(*options, '--measures', 'eval', 'train')
    assert status == 1 and text in err and err.startswith('not alike: ')
    assert 'ratio' not in out


def test_mmrotates_network_is_compared_with_ours_of_its_weights(bench):
    pytest.importorskip('mmrotate')
    status, _, err, report = bench(*SMALL, '--networks', 'C8,mmrotate', '--baseline', 'C8', '--measures', 'train')
    assert status == 0, err
    assert report['errors']['mmrotate'] < 1e-5
    assert [(row['network'], row['baseline']) for row in report['rows']] == [('mmrotate', 'C8')]


def test_what_is_not_there_is_left_out_with_a_reason(bench, monkeypatch):
    monkeypatch.setattr('mmrotate_plugin.registry.MODELS.get', lambda name: {'ReResNet': ReResNet}.get(name))

    def import_without_mmrotate(name):
        if name.startswith('mmrotate.'):
            raise ModuleNotFoundError(name='mmrotate')
        return import_module(name)

    monkeypatch.setattr('mmrotate_plugin.apis.benchmark.contestants.import_module', import_without_mmrotate)
    status, out, _, report = bench(*SMALL, '--networks', 'plain,adf,mmrotate,C8', '--measures', 'eval')
    assert status == 0
    assert set(report['left_out']) == {'adf', 'mmrotate'}
    assert 'mmrotate: left out, mmrotate is not installed' in out and 'adf: left out, ' in out
    assert {row['network'] for row in report['rows']} == {'C8'}


@pytest.mark.parametrize(
    ('args', 'text'),
    [
        (['--networks', 'plain,E8'], "'E8' is unknown; known are 'plain'"),
        (['--networks', 'plain,exported-C8+cp'], "'exported-C8+cp' is unknown"),
        (['--networks', 'plain,folded+cp'], "'folded+cp' is unknown"),
        (['--networks', 'plain,imported-C8'], "'imported-C8' is unknown"),
        (['--networks', 'plain,exported-plain'], "'exported-plain' is unknown"),
        (['--networks', 'plain'], 'nothing to compare'),
        (['--baseline', 'plain,folde'], "'folde' is not among the networks plain, folded"),
        (['--networks', 'C8,C4'], "'plain' is not among the networks C8, C4"),
        (['--networks', 'plain,C8', '--base-channels', '12'], 'C8: base_channels=12'),
        (['--device', 'abacus'], "--device 'abacus' cannot be used"),
    ],
)
def test_wrong_input_is_one_line(bench, args, text):
    status, _, err, report = bench(*SMALL, *args)
    assert status == 2 and report is None
    assert err.startswith('error: ') and text in err and err.count('\n') == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_gpu_that_is_not_there(bench):
    status, _, err, _ = bench(*SMALL, '--device', 'cuda')
    assert status == 2 and "--device 'cuda' cannot be used" in err


@pytest.mark.parametrize(
    ('args', 'text'),
    [
        (['--sizes', '0'], '--sizes must be 33 pixels or more'),
        (['--rounds', '0'], '--rounds must be 1 or more'),
        (['--threads', '-1'], '--threads must be 1 or more'),
        (['--depth', '19'], 'invalid choice: 19'),
        (['--measures', 'taste'], "invalid choice: 'taste'"),
        (['--widths', '32', '16'], '--widths must be two or more, ascending'),
    ],
)
def test_wrong_options_end_with_status_two(tool, capsys, args, text):
    with pytest.raises(SystemExit) as end:
        tool('benchmark')(args)
    assert end.value.code == 2
    assert text in capsys.readouterr().err


def test_a_page_without_the_markers_stays_as_it_is(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('my text\n')
    with pytest.raises(ValueError, match='must have the line'):
        write_into(page, 'table', 'cpu')
    assert page.read_text() == 'my text\n'


def test_pairs_are_taken_side_by_side_in_both_orders():
    taken = []

    def value(name):
        taken.append(name)
        return float(len(taken))

    values = interleave([('a', 'b'), ('a', 'c')], 2, value, print, warm_up=True)
    assert taken == list('abc' + 'abac' + 'baca')
    assert values == {('a', 'b'): [(4, 5), (9, 8)], ('a', 'c'): [(6, 7), (11, 10)]}


def test_the_ratio_is_that_of_pairs_not_of_medians():
    (row,) = rows_of('train', 's', {('a', 'b'): [(1.0, 2.0), (10.0, 5.0), (100.0, 50.0)]})
    assert (row['value'], row['baseline_value']) == (5, 10)
    assert row['ratio'] == 0.5 and row['quartiles'] == (0.5, 1.25)
    (row,) = rows_of('train', 's', {('a', 'b'): [(1.0, 3.0), (2.0, 6.0), (9.0, 9.0)]})
    assert (row['value'], row['baseline_value']) == (6, 2) and row['ratio'] == 3
    assert '3.000' in as_text([row]) and '2.000 - 3.000' in as_text([row])


def test_baselines_for_inference_are_compared_with_their_like():
    networks = [find(name, 18, 16) for name in ('plain', 'folded', 'C8', 'exported-C8', 'C8+cp')]
    both = ['plain', 'folded']
    others = [('plain', 'folded'), ('plain', 'C8'), ('plain', 'exported-C8')]
    assert pairs_of(networks, both, 'eval') == [*others, ('folded', 'exported-C8')]
    assert pairs_of(networks, both, 'train') == [('plain', 'C8'), ('plain', 'C8+cp')]
    assert pairs_of(networks, both, 'build') == [('plain', 'C8')]


@pytest.mark.parametrize(
    ('value', 'unit', 'text'),
    [(0.0123, 's', '12.3 ms'), (61.5, 's', '61.5 s'), (2**20, 'byte', '1 MiB'), (3 * 2**30, 'byte', '3 GiB')],
)
def test_quantities(value, unit, text):
    assert quantity(value, unit) == text


@pytest.mark.needs_torch('2.1', 'a square that keeps its input alone')
def test_kept_bytes_are_those_of_the_maps():
    """Of conv, norm and in-place ReLU: the input, the map of the convolution, and that of the norm, the output."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    x = torch.randn(2, 3, 8, 8)
    found = kept_for_backward(net, x)
    wanted = 4 * (2 * 3 * 64 + 2 * 2 * 4 * 64)
    statistics = 4 * (4 * 4 + 2)  # running and batch statistics, scalars of the loss
    assert wanted <= found <= wanted + statistics


def test_recomputing_keeps_less():
    x = torch.randn(2, 3, 65, 65)
    kept = {name: kept_for_backward(find(name, 18, 16).build(), x) for name in ('C8', 'C8+cp')}
    assert kept['C8+cp'] < kept['C8'] / 2


def test_other_kinds_of_maps():
    x = torch.ones(1, 2)
    assert maps(lambda x: x, x)[0] is x
    both = maps(lambda x: (SimpleNamespace(tensor=x), Gaussian(x, 2 * x)), x, variances=True)
    assert both[0] is both[1] is x and torch.equal(both[2], 2 * x)


def test_a_process_of_its_own():
    """What it prints last are numbers."""
    settings = Settings(
        measures=MEASURES,
        baselines=['plain'],
        depth=18,
        base_channels=16,
        sizes=[33, 65],
        batch_size=2,
        eval_batch_size=1,
        widths=(),
        compiled=False,
        rounds=1,
        processes=1,
        threads=1,
    )
    words = command('C8', ['build', 'memory'], settings, torch.device('cpu'))
    done = subprocess.run(words, env=environment(1), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert set(measured) == {'import_e2cnn', 'import', 'first', 'peak', 'kept'}
    assert min(measured.values()) > 0
    assert measured['kept'] == kept_for_backward(find('C8', 18, 16).build(), torch.randn(2, 3, 65, 65))
    assert '--size 0' in ' '.join(command('C8', ['build'], settings, torch.device('cpu')))


def test_compiled_passes_are_compared_with_a_compiled_baseline(bench, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, 'compile', lambda net: compiled.append(type(net).__name__) or net)
    status, _, err, report = bench(*SMALL, '--networks', 'plain,adf-delta', '--measures', 'eval', '--compiled')
    assert status == 0, err
    assert [row['measure'] for row in report['rows']] == ['eval 1x33x33', 'eval, compiled 1x33x33']
    assert compiled == ['ResNet', 'ADFResNet']


def test_detectors_are_timed_by_each_rule(bench, monkeypatch):
    pytest.importorskip('mmrotate')
    from mmrotate_plugin.models.detectors.uncertain_detector import UncertainDetector

    config = 'configs/adf/uncertain-rotated-fcos_adfr18_fpn_synthetic.py'
    runs = detection_runs(str(ROOT / config), None, torch.device('cpu'), images=1)
    assert list(runs) == ['detector', 'off', 'diagonal', 'bfloat16', 'rank1', 'delta']
    seen = []
    monkeypatch.setattr(UncertainDetector, 'linearize', lambda self, *_, **__: seen.append(self.rule) or 1 / 0)
    for name, run in runs.items():
        if name in ('detector', 'off'):
            run()
        else:
            pytest.raises(ZeroDivisionError, run)
    assert seen == ['diagonal', 'bfloat16', 'rank1', 'delta']

    plain = str(ROOT / 'configs/adf/rotated-fcos_adfr18_fpn_synthetic.py')
    status, _, err, _ = bench(*SMALL, '--networks', 'plain,folded', '--measures', 'eval', '--detector', plain)
    assert status == 2 and 'but must be an UncertainDetector' in err


def test_changes_are_told_and_regressions_fail_if_asked(bench, tmp_path):
    row = {'measure': 'train', 'network': 'C8', 'baseline': 'plain', 'unit': 's'}
    old, new = ({'threads': n, 'rows': [{**row, 'rounds': [(1, n + i / 99) for i in range(5)]}]} for n in (1, 2))
    for name, report in (('old', old), ('new', new)):
        (tmp_path / f'{name}.json').write_text('\ufeff' + json.dumps(report))
    files = [str(tmp_path / 'old.json'), str(tmp_path / 'new.json')]
    status, out, _, _ = bench('--compare', *files)
    assert status == 0 and 'slower' in out and 'note: threads differs' in out
    assert '+98.0%' in out  # medians of 1 + 2 / 99 and 2 + 2 / 99
    status, _, err, _ = bench('--compare', *files, '--fail-on-regression')
    assert status == 1 and 'train, C8 / plain: slower, 1.020 to 2.020' in err
    status, out, _, _ = bench('--compare', *files[::-1], '--fail-on-regression')
    assert status == 0 and 'faster' in out
    status, out, _, _ = bench('--compare', *files, '--fail-on-regression', '--least-change', '100')
    assert status == 0 and 'within noise' in out

    for text, said in (
        ('{', 'is no benchmark.json'),
        ('{"rows": [{}]}', 'is no benchmark.json'),
        (None, 'cannot be read'),
    ):
        path = tmp_path / 'wrong.json'
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        status, _, err, _ = bench('--compare', str(path))
        assert status == 2 and said in err and err.count('\n') == 1


@pytest.mark.parametrize(
    ('args', 'text'),
    [
        (['--configs', 'a.py'], 'two or more'),
        (['--configs', 'a.py', 'b.py', '--profile', 'a.py'], 'exclude each other'),
        (['--profile', 'a.py', '--compare', 'old.json'], 'which --profile does not measure'),
        (['--profile', 'a.py', '--depth', '18'], '--depth is for networks'),
        (['--profile', 'a.py', '--sizes', '65', '129'], 'takes one of --sizes'),
        (['--fail-on-regression'], 'needs --compare'),
        (['--compare', 'a', 'b', 'c'], 'takes one file'),
        (['--compare', 'a', '--least-change', '-1'], 'percentage of 0 or more'),
        (['--cfg-options', 'a=1'], 'needs --detector, --configs or --profile'),
    ],
)
def test_modes_that_exclude_each_other(tool, capsys, args, text):
    with pytest.raises(SystemExit) as end:
        tool('benchmark')(args)
    assert end.value.code == 2
    assert text in capsys.readouterr().err


def test_configs_and_their_profile(bench, monkeypatch, tmp_path):
    pytest.importorskip('mmrotate')
    from mmrotate_plugin.apis.benchmark.roofline import Limits

    monkeypatch.setattr('mmrotate_plugin.commands._profile.measure_limits', lambda _: Limits(1e9, 1e9))
    configs = [str(ROOT / f'configs/synthetic/rotated-fcos_{name}_fpn_synthetic.py') for name in ('r18', 're18')]
    few = ['--sizes', '65', '--rounds', '1']
    few += ['--cfg-options', 'model.test_cfg.nms_pre=20', 'train_dataloader.dataset.length=4']
    status, _, err, report = bench('--configs', *configs, '--measures', 'eval', 'train', '--batch-size', '1', *few)
    assert status == 0, err
    names = [Path(config).stem for config in configs]
    assert [row['measure'].split(' 1x3x')[0] for row in report['rows']] == [
        'train, config',
        'eval, config',
        'eval, exported config',
    ]
    assert {(row['baseline'], row['network']) for row in report['rows']} == {tuple(names)}
    status, out, err, _ = bench('--profile', configs[1], '--measures', 'eval', *few)
    assert status == 0, err
    written = json.loads((tmp_path / 'out/profile.json').read_text())
    (passes,) = written['passes'].values()
    layers = {row['layer'] for row in passes['rows']}
    assert {'backbone.conv1', 'backbone.layer1.0.conv1', 'bbox_head.conv_cls'} <= layers
    assert 'by operation' in out and 'backbone.conv1, forward' in (tmp_path / 'out/profile.md').read_text()
