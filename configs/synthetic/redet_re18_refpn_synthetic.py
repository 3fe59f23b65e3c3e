# ReDet, small enough to train on a CPU in minutes, on the embedded data set
_base_ = ['mmrotate::redet/redet-le90_re50_refpn_1x_dota.py', '../_base_/datasets/synthetic.py']
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)
val_evaluator = dict(type='mmrotate_plugin.DOTAMetric')
test_evaluator = val_evaluator

group = 'C8'
base_channels = 32
channels = 64
strides = [4, 8, 16]
finest_scale = 24  # regions of less than twice this size, in pixels, are read from the finest level
num_classes = 5
heads = [
    dict(head, in_channels=channels, fc_out_channels=128, num_classes=num_classes)
    for head in _base_.model.roi_head.bbox_head
]
model = dict(
    type='mmrotate_plugin.ReDet',
    data_preprocessor=dict(pad_size_divisor=1),  # keep sizes of 32m + 1
    backbone=dict(
        _delete_=True,
        type='mmrotate_plugin.ReResNet',
        group=group,
        depth=18,
        base_channels=base_channels,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
    ),
    neck=dict(
        _delete_=True,
        type='mmrotate_plugin.ReFPN',
        group=group,
        in_channels=[base_channels, 2 * base_channels, 4 * base_channels],
        out_channels=channels,
        num_outs=len(strides),
    ),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4], strides=strides),
    ),
    roi_head=dict(
        bbox_roi_extractor=[
            dict(
                type='mmdet.SingleRoIExtractor',
                roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=2),
                out_channels=channels,
                featmap_strides=strides,
                finest_scale=finest_scale,
            ),
            dict(
                type='RotatedSingleRoIExtractor',
                roi_layer=dict(
                    type='mmrotate_plugin.RiRoIAlignRotated',
                    out_size=7,
                    num_samples=2,
                    num_orientations=8,
                    clockwise=True,
                    published=False,  # no published weights to follow here
                ),
                out_channels=channels,
                featmap_strides=strides,
                finest_scale=finest_scale,
            ),
        ],
        bbox_head=heads,
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=300, max_per_img=200),
        rcnn=[dict(rcnn, sampler=dict(rcnn.sampler, num=96)) for rcnn in _base_.model.train_cfg.rcnn],
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=200), rcnn=dict(nms_pre=300, max_per_img=100)),
)

batch_size = 4
train_dataloader = dict(batch_size=batch_size, num_workers=1, dataset=dict(_delete_=True, **_base_.synthetic_train))
val_dataloader = dict(num_workers=1, dataset=dict(_delete_=True, **_base_.synthetic_val))
test_dataloader = dict(num_workers=1, dataset=dict(_delete_=True, **_base_.synthetic_test))

max_epochs = 8
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
auto_scale_lr = dict(base_batch_size=batch_size)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min=2e-5, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_epochs))
