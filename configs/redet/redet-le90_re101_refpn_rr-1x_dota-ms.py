_base_ = './redet-le90_re50_refpn_rr-1x_dota-ms.py'

model = dict(backbone=dict(depth=101))
