_base_ = ['./redet-le90_re50_refpn_1x_dota.py', '../_base_/datasets/dior.py']

model = dict(roi_head=dict(bbox_head=[dict(head, num_classes=20) for head in _base_.model.roi_head.bbox_head]))
train_dataloader = dict(dataset=dict(_delete_=True, **_base_.dior_train))
val_dataloader = dict(dataset=dict(_delete_=True, **_base_.dior_test))
test_dataloader = val_dataloader
