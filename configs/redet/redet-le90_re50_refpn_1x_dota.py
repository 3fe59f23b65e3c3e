# ReDet (Han et al., CVPR 2021). It starts from random weights; published ones, pre-trained on ImageNet, go in by
# --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE
# model.backbone.frozen_stages=1 model.backbone.norm_eval=True
_base_ = ['mmrotate::redet/redet-le90_re50_refpn_1x_dota.py', '../_base_/datasets/dota.py']
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)
val_evaluator = dict(type='mmrotate_plugin.DOTAMetric')
test_evaluator = val_evaluator

group = 'C8'
upright, turned = _base_.model.roi_head.bbox_roi_extractor
model = dict(
    type='mmrotate_plugin.ReDet',
    data_preprocessor=dict(pad_size_divisor=1),  # keep sizes of 32m + 1
    backbone=dict(_delete_=True, type='mmrotate_plugin.ReResNet', depth=50, group=group),
    neck=dict(type='mmrotate_plugin.ReFPN', group=group),
    roi_head=dict(
        bbox_roi_extractor=[
            upright,
            dict(turned, roi_layer=dict(turned.roi_layer, type='mmrotate_plugin.RiRoIAlignRotated')),
        ]
    ),
)
train_dataloader = dict(dataset=dict(type=_base_.dota_reader, pipeline=_base_.dota_train))
val_dataloader = dict(dataset=dict(type=_base_.dota_reader, pipeline=_base_.dota_test))
test_dataloader = val_dataloader
