# the same detector with an ordinary ResNet, to compare with
_base_ = './rotated-fcos_re18_fpn_synthetic.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdet.ResNet',
        depth=18,
        base_channels=_base_.base_channels,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
    )
)
