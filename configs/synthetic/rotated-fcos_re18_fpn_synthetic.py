# Rotated FCOS with an equivariant backbone, small enough to train on a CPU in minutes, on the embedded data set.
# The angle is learned as a phase (PSC), for which +90 and -90 degrees are the same.
_base_ = [
    'mmrotate::psc/rotated-fcos-hbox-le90_r50_fpn_psc-dual_1x_dota.py',
    '../_base_/datasets/synthetic.py',
]
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)
val_evaluator = dict(type='mmrotate_plugin.DOTAMetric')
test_evaluator = val_evaluator

base_channels = 32
channels = 64
model = dict(
    data_preprocessor=dict(pad_size_divisor=1),  # keep sizes of 32m + 1
    backbone=dict(
        _delete_=True,
        type='mmrotate_plugin.ReResNet',
        group='C8',
        depth=18,
        base_channels=base_channels,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
    ),
    neck=dict(
        in_channels=[base_channels, 2 * base_channels, 4 * base_channels],
        out_channels=channels,
        num_outs=2,
        add_extra_convs=False,
    ),
    bbox_head=dict(
        num_classes=5,
        in_channels=channels,
        feat_channels=channels,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=8, requires_grad=True),
        strides=[8, 16],
        regress_ranges=((-1, 48), (48, 1e8)),  # a ship may be narrower than a cell of 16 pixels
        angle_coder=dict(dual_freq=False, thr_mod=0),  # only the tanks are square, and any angle fits them
        loss_angle=dict(loss_weight=0.3),
        # distances are exp(output) pixels, and begin at exp(2.3) = 10
        norm_on_bbox=False,
        init_cfg=dict(
            type='Normal',
            layer='Conv2d',
            std=0.01,
            override=[
                dict(type='Normal', name='conv_cls', std=0.01, bias_prob=0.01),
                dict(type='Normal', name='conv_reg', std=0.01, bias=2.3),
            ],
        ),
    ),
    test_cfg=dict(nms_pre=300, max_per_img=100),
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
