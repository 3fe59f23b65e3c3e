# the detector of the embedded data set with an ordinary ResNet, whose weights fit; with output='gaussian' the backbone
# puts out variances too
_base_ = '../synthetic/rotated-fcos_r18_fpn_synthetic.py'

model = dict(
    backbone=dict(
        type='mmrotate_plugin.ADFResNet',
        norm_eval=False,  # trains from scratch
        noise_std=8.0,  # grey levels
        std=_base_.model.data_preprocessor.std,
    )
)
