_base_ = ['./any-angle_re50_1x_dota.py', '../_base_/datasets/dior.py']

model = dict(bbox_head=dict(num_classes=20))
train_dataloader = dict(dataset=dict(_delete_=True, **_base_.dior_train))
val_dataloader = dict(dataset=dict(_delete_=True, **_base_.dior_test))
test_dataloader = val_dataloader
