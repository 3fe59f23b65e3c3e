_base_ = './redet-le90_re50_refpn_1x_dota.py'

model = dict(roi_head=dict(bbox_head=[dict(head, num_classes=18) for head in _base_.model.roi_head.bbox_head]))
dataset = dict(type='mmrotate_plugin.DOTAv2Dataset', data_root='data/split_ss_dota2_0/')
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
