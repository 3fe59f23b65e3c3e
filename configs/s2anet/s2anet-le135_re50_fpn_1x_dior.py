_base_ = ['./s2anet-le135_re50_fpn_1x_dota.py', '../_base_/datasets/dior.py']

model = dict(bbox_head_init=dict(num_classes=20))
model['bbox_head_refine'] = [dict(_base_.model.bbox_head_refine[0], num_classes=20)]
train_dataloader = dict(dataset=dict(_delete_=True, **_base_.dior_train))
val_dataloader = dict(dataset=dict(_delete_=True, **_base_.dior_test))
test_dataloader = val_dataloader
