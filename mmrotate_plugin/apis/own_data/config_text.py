"""Write the text of a config, each choice with its reason beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

from .choices import Choices
from .images import Loading
from .layout import Layout

WIDTH = 100


def config_text(
    folder: str, title: str, classes: Sequence[str], layout: Layout, loading: Loading, choices: Choices
) -> str:
    """Write a config for `Config.fromfile`.

    Args:
        folder: The folder as it was named.
        title: Name of its format.
        classes: Names in the order of their labels.
        layout: Its data sets.
        loading: How its images are loaded.
        choices: Sizes, widths, batch, epochs.
    """
    why, levels = choices.why, choices.levels
    base, channels = choices.base_channels, choices.channels
    ranges = [(-1, 48), (48, 1e8)] if levels == 2 else [(-1, 48), (48, 128), (128, 1e8)]
    stages = levels + 1
    named = layout.type != 'YOLOOBBDataset' and layout.type != 'RotatedCocoDataset'
    metainfo = '    metainfo=dict(classes=classes),\n' if named else ''
    source = 'the label files name these' if named else 'the file of the data names these; the order is the same'
    if layout.type == 'HRSCDataset':
        source = (
            'all ships are one class; with classwise=True in data and the names here, the data set tells them apart'
        )
    bands = loading.bands
    preprocessor = 'pad_size_divisor=1'
    if bands != 3:
        preprocessor = (
            f"type='mmrotate_plugin.DetDataPreprocessor',\n        mean={list(loading.mean)},  # of these images\n"
            f'        std={list(loading.std)},\n        bgr_to_rgb=False,\n        pad_size_divisor=1'
        )
    return f"""# Written by mmrotate-plugin init for {_line(folder)}, which is {title}.
# Each line may be changed; docs/own-data.md explains them. Train with: mmrotate-plugin train THIS_FILE
_base_ = __import__('mmrotate_plugin').config_file('synthetic/rotated-fcos_re18_fpn_synthetic.py')
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)

# {source}
classes = {_tuple(classes)}
data = dict(
    type='mmrotate_plugin.{layout.type}',
    data_root={str(layout.root.resolve()) + '/'!r},  # change it if the data move
{metainfo})
# {layout.why}
train_parts = {_list(layout.train)}
val_parts = {_list(layout.val)}

# {loading.why}
image = {_call(loading.step)}
boxes = [
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='mmrotate.ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
]
# {why['scale']}
scale = {choices.scale}  # 32m + 1, at which quarter turns are exact
resize = dict(type='mmrotate_plugin.SymmetricResize', scale=scale)
flip = dict(type='mmdet.RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal'])
meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
train_pipeline = [image, *boxes, resize, flip, dict(type='mmdet.PackDetInputs')]
val_pipeline = [image, resize, *boxes, dict(type='mmdet.PackDetInputs', meta_keys=meta)]
train_sets = [dict(**data, **part, pipeline=train_pipeline) for part in train_parts]
val_sets = [dict(**data, **part, test_mode=True, pipeline=val_pipeline) for part in val_parts]

# {why['batch']}
batch_size = {choices.batch}
workers = {choices.workers}
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=workers,
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',
        times={choices.times},  # {why['times']}
        dataset=train_sets[0] if len(train_sets) == 1 else dict(type='ConcatDataset', datasets=train_sets),
    ),
)
val_set = val_sets[0] if len(val_sets) == 1 else dict(type='ConcatDataset', datasets=val_sets)
val_dataloader = dict(batch_size=1, num_workers=workers, dataset=dict(_delete_=True, **val_set))
test_dataloader = val_dataloader  # put other images in place for a test that training has no part in

# {why['widths']}
base_channels = {base}
channels = {channels}
model = dict(
    data_preprocessor=dict(
        {preprocessor},
    ),
    # {why['levels']}
    backbone=dict(
        base_channels=base_channels,
        in_channels={bands},
        num_stages={stages},
        strides={(1, *(2,) * levels)},
        dilations={(1,) * stages},
        out_indices={tuple(range(stages))},
    ),
    neck=dict(
        in_channels=[base_channels * 2**level for level in range({stages})],
        out_channels=channels,
        num_outs={levels},
    ),
    bbox_head=dict(
        num_classes=len(classes),
        in_channels=channels,
        feat_channels=channels,
        strides={[8 * 2**i for i in range(levels)]},
        regress_ranges={str(ranges).replace('100000000.0', '1e8')},
    ),
    test_cfg=dict(nms_pre={10 * choices.most}, max_per_img={choices.most}),  # {why['most']}
)

# {why['epochs']}
max_epochs = {choices.epochs}
train_cfg = dict(max_epochs=max_epochs, val_interval=max(1, max_epochs // 4))
auto_scale_lr = dict(base_batch_size=batch_size)
# 2e-3 for batches of 4, and as the square root of the batch
optim_wrapper = dict(optimizer=dict(lr={choices.rate:g}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min={choices.rate / 100:g}, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3))
"""


def _tuple(values: Sequence[str]) -> str:
    one = f'({", ".join(map(repr, values))}{"," if len(values) == 1 else ""})'
    return one if len(one) <= WIDTH else '(\n' + ''.join(f'    {value!r},\n' for value in values) + ')'


def _list(parts: Sequence[Mapping[str, Any]]) -> str:
    return f'[{_call(parts[0])}]' if len(parts) == 1 else '[\n' + ''.join(f'    {_call(one)},\n' for one in parts) + ']'


def _call(values: Mapping[str, Any]) -> str:
    return f'dict({", ".join(f"{key}={_value(value)}" for key, value in values.items())})'


def _value(value: Any) -> str:
    return _call(value) if isinstance(value, Mapping) else repr(value)


def _line(text: str) -> str:
    """Keep a comment in one line, whatever the folder is called."""
    return ' '.join(text.split())
