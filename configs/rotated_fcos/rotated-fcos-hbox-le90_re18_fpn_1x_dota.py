_base_ = './rotated-fcos-hbox-le90_re50_fpn_1x_dota.py'

model = dict(backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512]))
