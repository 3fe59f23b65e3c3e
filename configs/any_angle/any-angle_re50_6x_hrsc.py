_base_ = ['./any-angle_re50_1x_dota.py', '../_base_/datasets/hrsc.py', '../_base_/schedules/6x.py']

model = dict(bbox_head=dict(num_classes=1))
train_dataloader = dict(dataset=dict(_delete_=True, **_base_.hrsc_train))
val_dataloader = dict(dataset=dict(_delete_=True, **_base_.hrsc_test))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=_base_.epochs_6x, val_interval=_base_.epochs_6x // 3)
param_scheduler = _base_.schedule_6x
