# trains and predicts as with the plain ResNet; with output='gaussian' the backbone puts out variances too
_base_ = 'mmrotate::rotated_fcos/rotated-fcos-hbox-le90_r50_fpn_1x_dota.py'
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)
val_evaluator = dict(type='mmrotate_plugin.DOTAMetric')
test_evaluator = val_evaluator

model = dict(
    backbone=dict(
        type='mmrotate_plugin.ADFResNet',
        noise_std=5.0,  # grey levels
        std=_base_.model.data_preprocessor.std,
    )
)
dataset = dict(type='mmrotate_plugin.DOTADataset')
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
