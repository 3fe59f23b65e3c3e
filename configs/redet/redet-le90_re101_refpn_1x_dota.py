_base_ = './redet-le90_re50_refpn_1x_dota.py'

model = dict(backbone=dict(depth=101))
