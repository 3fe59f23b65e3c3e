_base_ = './redet-le90_re50_refpn_rr-1x_dotav2-ms.py'

model = dict(backbone=dict(depth=101))
