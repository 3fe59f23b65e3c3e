# A detector that is equivariant to the box, at every angle: fields from the image to the boxes. It trains on a CPU, on
# the embedded data set. To train it on upright objects alone:
# --cfg-options "train_dataloader.dataset.angles=(0,0)"
_base_ = [
    'mmrotate::_base_/schedules/schedule_1x.py',
    'mmrotate::_base_/default_runtime.py',
    '../_base_/datasets/synthetic.py',
]
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)
val_evaluator = dict(type='mmrotate_plugin.DOTAMetric')
test_evaluator = val_evaluator

group = 'C8'
base_channels = 64
channels = 128
# Small vehicles are 9 pixels wide and stand side by side, so the finest level is 4. The finer its lattice, the less its
# points differ between angles.
strides = [4, 8, 16]
model = dict(
    type='mmdet.FCOS',
    data_preprocessor=dict(
        type='mmdet.DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1,  # keep sizes of 32m + 1
        boxtype2tensor=False,
    ),
    backbone=dict(
        type='mmrotate_plugin.ReResNet',
        depth=18,
        group=group,
        any_angle=True,
        base_channels=base_channels,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
    ),
    neck=dict(
        type='mmrotate_plugin.ReFPN',
        group=group,
        any_angle=True,
        in_channels=[base_channels, 2 * base_channels, 4 * base_channels],
        out_channels=channels,
        num_outs=len(strides),
    ),
    bbox_head=dict(
        type='mmrotate_plugin.ReFCOSHead',
        group=group,
        any_angle=True,
        num_classes=5,
        in_channels=channels,
        feat_channels=channels,
        stacked_convs=2,
        strides=strides,
        regress_ranges=((-1, 24), (24, 48), (48, 1e8)),  # a long ship may be narrower than a cell of 16 pixels
        norm_cfg=dict(type='BN'),
    ),
    train_cfg=None,
    test_cfg=dict(
        nms_pre=300,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms_rotated', iou_threshold=0.1),
        max_per_img=100,
    ),
)

batch_size = 4
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=_base_.synthetic_train,
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=_base_.synthetic_val,
)
test_dataloader = dict(val_dataloader, dataset=_base_.synthetic_test)

max_epochs = 8
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
auto_scale_lr = dict(base_batch_size=batch_size)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min=2e-5, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_epochs))
