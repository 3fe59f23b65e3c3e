# the same detector with an ordinary ResNet of equal width, FPN and RoI align, to compare with
_base_ = './redet_re18_refpn_synthetic.py'

channels = _base_.channels
extractors = _base_.model.roi_head.bbox_roi_extractor
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
    ),
    neck=dict(
        _delete_=True,
        type='mmdet.FPN',
        in_channels=_base_.model.neck.in_channels,
        out_channels=channels,
        num_outs=len(_base_.strides),
    ),
    roi_head=dict(
        bbox_roi_extractor=[
            extractors[0],
            dict(
                extractors[1],
                roi_layer=dict(type='RoIAlignRotated', output_size=7, sampling_ratio=2, aligned=False, clockwise=True),
            ),
        ]
    ),
)
