_base_ = './redet-le90_re50_refpn_3x_hrsc.py'

model = dict(backbone=dict(depth=101))
