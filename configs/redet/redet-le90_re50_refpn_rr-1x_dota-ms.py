# patches at three scales, turned at random
_base_ = './redet-le90_re50_refpn_1x_dota.py'

data_root = 'data/split_ms_dota/'
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=_base_.dota_rr_train))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
