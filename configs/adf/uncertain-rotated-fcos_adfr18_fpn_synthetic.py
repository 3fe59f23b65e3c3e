# the detector of rotated-fcos_adfr18_fpn_synthetic.py and its checkpoint, with standard deviations of boxes and scores
_base_ = './rotated-fcos_adfr18_fpn_synthetic.py'

model = dict(_delete_=True, type='mmrotate_plugin.UncertainDetector', detector=_base_.model)
test_evaluator = [_base_.test_evaluator, dict(type='mmrotate_plugin.UncertaintyMetric')]
