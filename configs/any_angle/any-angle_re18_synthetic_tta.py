# The same detector, tested with --tta on quarter turns, reflections and two scales, whose boxes are averaged.
_base_ = ['./any-angle_re18_synthetic.py', '../_base_/test_time_aug/rotated_tta.py']

tta_pipeline = _base_.tta_pipeline
tta_pipeline[1]['transforms'][1] = [
    dict(type='mmrotate_plugin.SymmetricResize', scale=scale) for scale in (_base_.synthetic_size, 257)
]
