_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(pad_size_divisor=1),  # keep sizes of 32m + 1
    backbone=dict(_delete_=True, type='ReResNet', depth=50, group='C8'),
)
resize = dict(type='SymmetricResize', scale=(1345, 801))
train_dataloader = dict(
    dataset=dict(pipeline=[resize if step.type == 'Resize' else step for step in _base_.train_pipeline])
)
val_dataloader = dict(
    dataset=dict(pipeline=[resize if step.type == 'Resize' else step for step in _base_.test_pipeline])
)
test_dataloader = dict(dataset=dict(pipeline=val_dataloader['dataset']['pipeline']))
