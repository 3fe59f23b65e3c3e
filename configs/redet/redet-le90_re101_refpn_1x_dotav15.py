_base_ = './redet-le90_re50_refpn_1x_dotav15.py'

model = dict(backbone=dict(depth=101))
