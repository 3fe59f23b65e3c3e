# Semantic segmentation of aerial images in mmsegmentation: an FCN on ReResNet-18 of stride 8. It has no base, since
# mmengine finds `mmseg::` by the name of the original distribution only.
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)
default_scope = 'mmseg'

size = (513, 513)  # 32m + 1: the strided lattices keep the image's centre
norm_cfg = dict(type='BN', requires_grad=True)  # SyncBN where several processes train
model = dict(
    type='mmseg.EncoderDecoder',
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=size,
    ),
    backbone=dict(
        type='mmrotate_plugin.ReResNet',
        depth=18,
        group='C8',
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        type='mmseg.FCNHead',
        in_channels=512,
        in_index=3,
        channels=128,
        num_convs=2,
        num_classes=6,
        norm_cfg=norm_cfg,
        align_corners=True,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)

_labels = dict(type='mmseg.LoadAnnotations', reduce_zero_label=True)
_data = dict(type='mmseg.PotsdamDataset', data_root='data/potsdam')
_evaluated = [
    dict(type='mmseg.LoadImageFromFile'),
    dict(type='mmseg.Resize', scale=size, keep_ratio=True),
    _labels,
    dict(type='mmseg.PackSegInputs'),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **_data,
        data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),
        pipeline=[
            dict(type='mmseg.LoadImageFromFile'),
            _labels,
            dict(type='mmseg.RandomResize', scale=size, ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type='mmseg.RandomCrop', crop_size=size, cat_max_ratio=0.75),
            dict(type='mmseg.RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='mmseg.RandomFlip', prob=0.5, direction='vertical'),
            dict(type='mmseg.PhotoMetricDistortion'),
            dict(type='mmseg.PackSegInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **_data,
        data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val'),
        pipeline=_evaluated,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

max_iters = 20000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters // 10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4), clip_grad=None
)
param_scheduler = [dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=max_iters, by_epoch=False)]
auto_scale_lr = dict(base_batch_size=16)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=max_iters // 10),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='mmseg.SegVisualizationHook'),
)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(type='mmseg.SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
log_processor = dict(by_epoch=False)
