_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)

model = dict(backbone=dict(_delete_=True, type='ReResNet', depth=50, group='C8'))
