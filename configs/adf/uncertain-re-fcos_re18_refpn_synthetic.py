# the detector of re-fcos_re18_refpn_synthetic.py and its checkpoint, with standard deviations of boxes and scores; the
# noise at each place is told from the image
_base_ = '../synthetic/re-fcos_re18_refpn_synthetic.py'

model = dict(
    _delete_=True, type='mmrotate_plugin.UncertainDetector', detector=_base_.model, noise_std='estimate', score_map=True
)
test_evaluator = [_base_.test_evaluator, dict(type='mmrotate_plugin.UncertaintyMetric')]
