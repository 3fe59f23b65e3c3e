"""The tool: a table, numbers and a figure of a small detector; several results in one figure; one-line errors."""

import json

import cv2
import pytest
import torch

pytest.importorskip('mmrotate')

TEST = """
_base_ = {base!r}
test_dataloader = dict(
    _delete_=True, batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmrotate_plugin.SyntheticAerialDataset', size=65, length=2, num_objects=(2, 4), test_mode=True,
        pipeline=[*_base_.boxes, dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_shape', 'ori_shape'))]))
test_evaluator = dict(_delete_=True, type='mmrotate_plugin.DOTAMetric')
"""
CPU = ['--device', 'cpu']


@pytest.fixture(scope='module')
def detector(small_config, tmp_path_factory):
    """A config with drawn test data, and a checkpoint of random weights."""
    from mmrotate_plugin.apis.config import load_config
    from mmrotate_plugin.apis.inference import build_model

    folder = tmp_path_factory.mktemp('angles')
    config = folder / 'small_test.py'
    config.write_text(TEST.format(base=str(small_config)))
    model = build_model(load_config(str(config)))
    torch.nn.init.constant_(model.bbox_head.conv_cls.bias, 0.0)  # so that there are detections
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, folder / 'weights.pth')
    return [str(config), str(folder / 'weights.pth')]


@pytest.fixture
def evaluate(tool, tmp_path, capsys):
    """Run the tool; returns its status, what it printed on either stream, and the report."""

    def run(*args, out='out'):
        status = tool('evaluate_angles')([*args, '--out', str(tmp_path / out), *CPU])
        printed = capsys.readouterr()
        report = tmp_path / out / 'angles.json'
        return status, printed.out, printed.err, json.loads(report.read_text()) if report.exists() else None

    return run


def test_table_numbers_and_figure(evaluate, detector, tmp_path):
    status, out, err, report = evaluate(*detector, '--angles', '0', '45', '90', '--per-class', '--name', 'tiny')
    assert status == 0, err
    assert list(report) == [
        'name', 'config', 'checkpoint', 'how', 'classes', 'images', 'angles', 'summary',
    ]  # fmt: skip
    assert report['name'] == 'tiny' and report['how'] == 'drawn' and report['images'] == 2
    assert [row['degrees'] for row in report['angles']] == [0, 45, 90]
    row = report['angles'][0]
    assert list(row) == ['degrees', 'mirrored', 'objects', 'AP50', 'AP75', 'AP50_95', 'classes']
    assert 0 <= row['AP50'] < 0.5 and row['objects'] > 3 and len(row['classes']) == 5
    assert list(report['summary']) == ['AP50', 'AP75', 'AP50_95']
    assert set(report['summary']['AP50']) == {'mean', 'worst', 'worst_at', 'best', 'spread', 'together'}
    head = next(line for line in out.split('\n') if line.startswith('angle  '))
    assert 'mAP@0.5' in head and 'ship' in head
    assert all(f'\n{word} ' in out for word in ('0', '45', '90', 'mean', 'worst', 'spread', 'together'))
    picture = cv2.imread(str(tmp_path / 'out/angles.png'))
    assert picture is not None and min(picture.shape[:2]) > 400
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['angles.json', 'angles.png']


def test_turned_images_and_one_figure_of_several_results(evaluate, detector, tmp_path, monkeypatch):
    status, out, _, first = evaluate(*detector, '--method', 'turn', '--step', '180', '--mirrored', out='a')
    assert status == 0 and 'images turned exactly' in out
    assert [(row['degrees'], row['mirrored']) for row in first['angles']] == [
        (0, False), (180, False), (0, True), (180, True),
    ]  # fmt: skip
    drawn = []
    figure = 'mmrotate_plugin.commands.evaluate_angles.angle_figure'
    monkeypatch.setattr(figure, lambda curves, **_: drawn.extend(curves) or b'')
    files = ['--compare', str(tmp_path / 'a/angles.json'), str(tmp_path / 'a/angles.json')]
    status, _, _, second = evaluate(
        *detector, '--method', 'turn', '--angles', '0', '30', '--num-images', '1', '--name', 'other', *files, out='b'
    )
    assert status == 0 and second['how'] == 'resampled' and second['images'] == 1
    assert [(c.name, c.degrees, c.mirrored, len(c.values)) for c in drawn] == [
        ('other', (0, 30), False, 1), ('small_test', (0, 180), False, 2), ('small_test', (0, 180), True, 2),
    ]  # fmt: skip
    drawn.clear()
    status, out, _, report = evaluate(*files, str(tmp_path / 'b/angles.json'), out='c')
    assert status == 0 and report is None and len(drawn) == 3 and 'figure: ' in out
    assert (tmp_path / 'c/angles.png').exists()


def test_two_results_of_one_name_at_other_angles(evaluate, detector, tmp_path):
    assert evaluate(*detector, '--angles', '0', '--num-images', '1', out='a')[0] == 0
    status, _, err, _ = evaluate(
        *detector, '--angles', '90', '--num-images', '1', '--compare', str(tmp_path / 'a/angles.json'), out='b'
    )
    assert status == 2 and "two results have the name 'small_test' and other angles: give another --name" in err


@pytest.mark.parametrize(
    ('args', 'text'),
    [
        (['--compare', 'nowhere.json'], "--compare 'nowhere.json' does not exist"),
        (['--compare', __file__], 'is no result of evaluate-angles (angles.json)'),
        (['--method', 'draw', '--mirrored'], '--mirrored needs turned images: use --method turn'),
        (['--cfg-options', 'test_dataloader=None'], 'no test_dataloader'),
        (['--cfg-options', 'test_dataloader.dataset.num_objects=(0,0)'], 'no ground truth'),
        (['--cfg-options', 'test_dataloader.dataset.size=3'], 'both sides must be at least 32 pixels'),
    ],
)
def test_wrong_input_is_one_line(evaluate, detector, args, text):
    status, _, err, _ = evaluate(*detector, *args)
    assert status == 2 and 'Traceback' not in err
    assert [line for line in err.split('\n') if line.startswith('error: ') and text in line], err


@pytest.mark.parametrize(
    ('args', 'text'),
    [
        (['--step', '0'], '--step must be from 0.5 to 360 degrees, not 0'),
        (['--angles', '400'], '--angles must be from -360 to 360 degrees, not 400'),
        (['--angles', 'nan'], '--angles must be from -360 to 360 degrees, not nan'),
        (['--angles', '0', '0'], '--angles has an angle twice'),
        (['--angles', '0', '--step', '5'], 'not allowed with argument'),
        (['--num-images', '0'], '--num-images must be 1 or more'),
    ],
)
def test_wrong_options_end_with_status_two(tool, capsys, args, text):
    with pytest.raises(SystemExit) as end:
        tool('evaluate_angles')(['x.py', 'x.pth', *args])
    assert end.value.code == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ('args', 'text'),
    [
        ([], 'give CONFIG and CHECKPOINT'),
        (['x.py'], 'give the CHECKPOINT'),
        (['--compare', 'a.json'], '--out must say'),
    ],
)
def test_there_must_be_something_to_do(tool, capsys, args, text):
    with pytest.raises(SystemExit) as end:
        tool('evaluate_angles')(args)
    assert end.value.code == 2 and text in capsys.readouterr().err
