import pytest
from mmengine.config import Config

from mmrotate_plugin.apis.uncertain_config import add_uncertainty, inner_model, is_uncertain

PLAIN = dict(type='mmdet.FCOS', backbone=dict(type='mmdet.ResNet'))
WRAPPED = dict(type='mmrotate_plugin.UncertainDetector', detector=PLAIN, noise_variance=0.1, method='jacobian')


@pytest.mark.parametrize('backbone, noise', [('mmdet.ResNet', 'estimate'), ('mmrotate_plugin.ADFResNet', None)])
def test_a_plain_detector_is_wrapped(backbone, noise):
    cfg = Config(dict(model={**PLAIN, 'backbone': dict(type=backbone)}))
    add_uncertainty(cfg)
    assert is_uncertain(cfg.model) and cfg.model.detector.type == 'mmdet.FCOS'
    assert cfg.model.get('noise_std') == noise and cfg.model.score_map
    assert inner_model(cfg).backbone.type == backbone


def test_what_is_not_given_stays():
    cfg = Config(dict(model={**WRAPPED, 'enabled': False}))
    add_uncertainty(cfg)
    assert cfg.model == {**WRAPPED, 'enabled': True, 'score_map': False}
    add_uncertainty(cfg, noise_std=3.0, method='propagated')
    assert cfg.model.noise_std == 3.0 and 'noise_variance' not in cfg.model  # two noises would be an error
    assert cfg.model.method == 'propagated' and cfg.model.score_map
    add_uncertainty(cfg, score_map=False)
    assert not cfg.model.score_map and cfg.model.detector == PLAIN


def test_a_plain_config_is_its_own_inner_model():
    cfg = Config(dict(model=PLAIN))
    assert not is_uncertain(cfg.model) and inner_model(cfg) is cfg.model
