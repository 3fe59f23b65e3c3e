_base_ = ['mmrotate::rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py', '../_base_/datasets/dota.py']
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)
val_evaluator = dict(type='mmrotate_plugin.DOTAMetric')
test_evaluator = val_evaluator

model = dict(
    data_preprocessor=dict(pad_size_divisor=1),  # keep sizes of 32m + 1
    backbone=dict(_delete_=True, type='mmrotate_plugin.ReResNet', depth=50, group='C8'),
)
train_dataloader = dict(dataset=dict(type=_base_.dota_reader, pipeline=_base_.dota_train))
val_dataloader = dict(dataset=dict(type=_base_.dota_reader, pipeline=_base_.dota_test))
test_dataloader = val_dataloader
