_base_ = 'mmrotate::rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py'
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)

model = dict(backbone=dict(_delete_=True, type='mmrotate_plugin.ReResNet', depth=50, group='C8'))
