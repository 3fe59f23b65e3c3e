"""`train` on each format as it is, without a conversion, and `convert-dataset` as a command."""

import errno
import os

import pytest

from mmrotate_plugin.datasets import convert_dataset

FORMATS = {
    'yolo-obb': "type='mmrotate_plugin.YOLOOBBDataset', ann_file='data.yaml', split='train'",
    'coco': "type='mmrotate_plugin.RotatedCocoDataset', ann_file='annotations/instances.json', "
    "data_prefix=dict(img_path='images/')",
    'rolabelimg': "type='mmrotate_plugin.RoLabelImgDataset', ann_file='annotations/', "
    "data_prefix=dict(img_path='images/'), metainfo=dict(classes=('plane',))",
    'labelme': "type='mmrotate_plugin.LabelMeDataset', ann_file='', data_prefix=dict(img_path=''), "
    "metainfo=dict(classes=('plane',))",
}
CONFIG = """
_base_ = {base!r}
train_dataloader = dict(dataset=dict(
    _delete_=True, data_root={root!r}, {dataset}, filter_cfg=dict(filter_empty_gt=True),
    pipeline=[
        dict(type='mmdet.LoadImageFromFile'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
        dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
        dict(type='mmdet.Resize', scale=(96, 96), keep_ratio=True),
        dict(type='mmdet.PackDetInputs')]))
val_dataloader = val_cfg = val_evaluator = None
"""


@pytest.mark.slow
@pytest.mark.usefixtures('fresh_visualizers')
@pytest.mark.parametrize('kind', FORMATS)
def test_train_on_a_format_as_it_is(kind, scenes, tiny_config, tool, tmp_path, capsys):
    convert_dataset(scenes, tmp_path / 'data', kind)
    dataset = FORMATS[kind].replace("ann_file=''", "ann_file='.'")
    (tmp_path / 'c.py').write_text(CONFIG.format(base=str(tiny_config), root=f'{tmp_path}/data/', dataset=dataset))
    words = [str(tmp_path / 'c.py'), '--work-dir', str(tmp_path / 'w')]
    assert tool('train')(words) == 0, capsys.readouterr().err
    assert (tmp_path / 'w/epoch_1.pth').exists()


def test_the_classes_of_a_file_are_compared_with_the_heads(scenes, tiny_config, tool, tmp_path, capsys):
    convert_dataset(scenes, tmp_path / 'data', 'yolo-obb')
    (tmp_path / 'data/data.yaml').write_text('train: images/train\nnames: [plane, ship]\n')
    text = CONFIG.format(base=str(tiny_config), root=f'{tmp_path}/data/', dataset=FORMATS['yolo-obb'])
    (tmp_path / 'c.py').write_text(text)
    assert tool('train')([str(tmp_path / 'c.py'), '--work-dir', str(tmp_path / 'w')]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert 'model.bbox_head.num_classes=1, but the data set of train_dataloader has 2 classes' in error


def test_the_command_says_what_it_did(scenes, tool, tmp_path, capsys):
    out = tmp_path / 'o'
    assert tool('convert_dataset')([str(scenes), str(out), '--to', 'yolo-obb', '--images', 'link']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        '(dota) to' in lines[0] and '6 images (train 6), 18 objects of 1 classes, 0 images without objects' in lines[0]
    )
    assert lines[1:] == ['note: the data have no val: data.yaml names other images for it']


def test_what_the_command_refuses_is_one_line(scenes, tool, tmp_path, capsys, monkeypatch):
    def fails(*words):
        capsys.readouterr()
        status = tool('convert_dataset')([*map(str, words)])
        (line,) = capsys.readouterr().err.splitlines()
        assert status == 2 and line.startswith('error: ')
        return line

    assert 'does not exist' in fails(tmp_path / 'nowhere', tmp_path / 'o', '--to', 'coco')
    (tmp_path / 'mixed').mkdir()
    (tmp_path / 'mixed/a.txt').write_text('1 2 3 4 ship')
    assert 'has lines of none of the formats' in fails(tmp_path / 'mixed', tmp_path / 'o', '--to', 'coco')

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr('mmrotate_plugin.utils.atomic_files.os.replace', full)
    assert 'could not be written: No space left on device' in fails(scenes, tmp_path / 'o', '--to', 'coco')
    assert not [path for path in (tmp_path / 'o').rglob('*') if path.is_file()]
