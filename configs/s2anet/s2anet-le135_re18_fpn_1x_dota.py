_base_ = './s2anet-le135_re50_fpn_1x_dota.py'

model = dict(backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512]))
