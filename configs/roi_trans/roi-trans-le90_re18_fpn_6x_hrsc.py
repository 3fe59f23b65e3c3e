_base_ = './roi-trans-le90_re50_fpn_6x_hrsc.py'

model = dict(backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512]))
