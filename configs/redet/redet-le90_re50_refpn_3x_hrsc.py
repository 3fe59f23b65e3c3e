_base_ = ['./redet-le90_re50_refpn_1x_dota.py', '../_base_/datasets/hrsc.py', '../_base_/schedules/3x.py']

model = dict(roi_head=dict(bbox_head=[dict(head, num_classes=1) for head in _base_.model.roi_head.bbox_head]))
train_dataloader = dict(dataset=dict(_delete_=True, **_base_.hrsc_train))
val_dataloader = dict(dataset=dict(_delete_=True, **_base_.hrsc_test))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=_base_.epochs_3x, val_interval=_base_.epochs_3x // 3)
param_scheduler = _base_.schedule_3x
optim_wrapper = dict(optimizer=dict(lr=0.01))
