# A detector that is equivariant to the box, at every angle, on DOTA
_base_ = ['mmrotate::rotated_fcos/rotated-fcos-hbox-le90_r50_fpn_1x_dota.py', '../_base_/datasets/dota.py']
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)
val_evaluator = dict(type='mmrotate_plugin.DOTAMetric')
test_evaluator = val_evaluator

group = 'C8'
model = dict(
    data_preprocessor=dict(pad_size_divisor=1),  # keep sides of 64m + 1
    backbone=dict(_delete_=True, type='mmrotate_plugin.ReResNet', depth=50, group=group, any_angle=True),
    neck=dict(
        _delete_=True,
        type='mmrotate_plugin.ReFPN',
        group=group,
        any_angle=True,
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        start_level=1,
        add_extra_convs=True,
        extra_convs_on_inputs=False,
        relu_before_extra_convs=True,
        num_outs=4,
    ),
    bbox_head=dict(
        _delete_=True,
        type='mmrotate_plugin.ReFCOSHead',
        group=group,
        any_angle=True,
        num_classes=15,
        in_channels=256,
        feat_channels=256,
        strides=[8, 16, 32, 64],  # the sides of 64m + 1 hold them
        regress_ranges=((-1, 64), (64, 128), (128, 256), (256, 1e8)),
    ),
)
train_dataloader = dict(dataset=dict(type=_base_.dota_reader, pipeline=_base_.dota_train))
val_dataloader = dict(dataset=dict(type=_base_.dota_reader, pipeline=_base_.dota_test))
test_dataloader = val_dataloader
