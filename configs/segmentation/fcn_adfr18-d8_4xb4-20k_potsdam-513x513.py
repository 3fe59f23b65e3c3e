_base_ = './fcn_re18-d8_4xb4-20k_potsdam-513x513.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmrotate_plugin.ADFResNet',
        depth=18,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        norm_cfg=_base_.norm_cfg,
        norm_eval=False,
    )
)
