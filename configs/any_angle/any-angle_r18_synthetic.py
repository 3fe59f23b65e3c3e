# The plain network of equal width beside any-angle_re18_synthetic.py: the same head, losses and assignment without a
# group, to see what the fields earn
_base_ = './any-angle_re18_synthetic.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmrotate_plugin.ResNet',
        depth=18,
        base_channels=_base_.base_channels,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
        norm_eval=False,  # it starts untrained
    ),
    neck=dict(
        _delete_=True,
        type='mmdet.FPN',
        in_channels=_base_.model.neck.in_channels,
        out_channels=_base_.channels,
        num_outs=len(_base_.strides),
    ),
    bbox_head=dict(group=None, any_angle=False),
)
