"""The public names: those that are imported in examples and configs, and that a change may not drop unnoticed."""

import ast
from importlib import import_module
from pathlib import Path

import pytest
from mmengine import registry as roots
from mmengine.registry import Registry

import mmrotate_plugin

ROOT = Path(mmrotate_plugin.__file__).parent
SURFACE = {
    'mmrotate_plugin': ['__version__', 'config_file', 'datasets', 'engine', 'evaluation', 'models'],
    'mmrotate_plugin.adf': [
        'AvgPool2d',
        'BasicBlock',
        'BatchNorm2d',
        'Bottleneck',
        'Calibration',
        'Conv2d',
        'ConvTranspose2d',
        'Dropout',
        'Gaussian',
        'LeakyReLU',
        'Linear',
        'MaxPool2d',
        'NoDropout',
        'NoMomentRule',
        'Prediction',
        'ReLU',
        'ResNet18ADF',
        'ResNet34ADF',
        'ResNet50ADF',
        'ResNet101ADF',
        'ResNet152ADF',
        'ResNetADF',
        'Sequential',
        'Softmax',
        'accept_gains',
        'calibrate',
        'concatenate_as',
        'estimate_noise',
        'functional',
        'gain_noise',
        'gain_rule',
        'jacobian_variance',
        'moment_rule',
        'predict',
        'remove_gains',
    ],
    'mmrotate_plugin.apis': [
        'Detections',
        'Detector',
        'Prediction',
        'Saved',
        'load_detector',
        'predict',
        'save_predictions',
    ],
    'mmrotate_plugin.datasets': [
        'AddNoise',
        'Conversion',
        'DIORDataset',
        'DOTADataset',
        'DOTAv2Dataset',
        'DOTAv15Dataset',
        'HRSCDataset',
        'LabelMeDataset',
        'LoadImageFromFile',
        'RoLabelImgDataset',
        'RotatedCocoDataset',
        'Scene',
        'Split',
        'SymmetricResize',
        'SyntheticAerialDataset',
        'TurnImage',
        'YOLOOBBDataset',
        'convert_dataset',
        'draw_scene',
        'resize_symmetric',
        'split_dataset',
    ],
    'mmrotate_plugin.engine': [
        'BFloat16OptimWrapper',
        'ConfigScheduleHook',
        'DetectionPicturesHook',
        'EquivarianceHook',
        'ExactResumeHook',
        'LimitsHook',
        'ReportHook',
        'StopAtDivergenceHook',
        'WholeCheckpointHook',
    ],
    'mmrotate_plugin.engine.report': [
        'Evaluation',
        'load_detections',
        'read_scalars',
        'save_detections',
        'write_report',
    ],
    'mmrotate_plugin.equivariant': [
        'FieldNorm',
        'FourierConv2d',
        'build_enn_divide_feature',
        'build_enn_feature',
        'build_enn_norm_layer',
        'build_enn_trivial_feature',
        'count_fields',
        'ennAvgPool',
        'ennBN',
        'ennBlurPool',
        'ennBlurUpsample',
        'ennConv',
        'ennFourierReLU',
        'ennGN',
        'ennGroupPool',
        'ennInterpolate',
        'ennIrrepConv',
        'ennMaxBlurPool',
        'ennMaxPool',
        'ennReLU',
        'ennSqueezeExcite',
        'ennSyncBN',
        'ennTrivialConv',
        'export',
        'group_order',
        'parse_group',
    ],
    'mmrotate_plugin.evaluation': [
        'DOTAMetric',
        'EvaluationError',
        'Merged',
        'UncertaintyMetric',
        'ViewAgreementMetric',
        'merge_predictions',
    ],
    'mmrotate_plugin.export': [
        'Exported',
        'Unsupported',
        'export_onnx',
        'plain_config',
        'plain_weights',
    ],
    'mmrotate_plugin.models': [
        'ADFResNet',
        'ReFPN',
        'ReResNet',
        'ResNet',
    ],
    'mmrotate_plugin.structures': [
        'CentredScale',
        'bring_back',
        'content_slices',
        'offset_of',
        'stretch_rotated',
        'tensor_of',
        'whole_input',
    ],
    'mmrotate_plugin.testing': [
        'EquivarianceCurve',
        'EquivarianceError',
        'Fields',
        'act',
        'act_on_irreps',
        'act_on_regular',
        'compare_fields',
        'disc',
        'equivariance_curve',
        'equivariance_error',
        'exact_elements',
        'fade_to_disc',
        'feature_fields',
        'full_precision',
        'randomize_norms_',
        'relative_error',
        'rotate',
        'turn',
    ],
}
# imported by an __init__ for what the import does, or called there
INNER = {
    'mmrotate_plugin': {'check_dependencies', 'data_workers', 'mends'},
    'mmrotate_plugin.models': {'mend_counters'},
}


def imported_names(source: str) -> set[str]:
    """Names that an __init__ imports from modules of its package, but not modules (``from . import layers``)."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return {name.asname or name.name for node in nodes if node.level and node.module for name in node.names}


@pytest.mark.parametrize('package', SURFACE)
def test_public_names_are_these(package):
    module = import_module(package)
    assert sorted(module.__all__) == sorted(SURFACE[package])
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def faces() -> dict[str, str]:
    """Packages whose __init__ has an `__all__`, and its source."""
    files = {file: file.read_text(encoding='utf-8') for file in sorted(ROOT.rglob('__init__.py'))}
    names = {file: '.'.join(file.parent.relative_to(ROOT.parent).parts) for file in files}
    return {names[file]: source for file, source in files.items() if '__all__' in source}


def test_no_public_name_is_missing_from_all():
    found = faces()
    assert set(SURFACE) <= set(found)
    for package, source in found.items():
        names = {name for name in imported_names(source) if not name.startswith('_')}
        missing = names - set(import_module(package).__all__) - INNER.get(package, set())
        assert missing == set(), package


def test_a_missing_name_is_found():
    source = "from .conv import ennConv, ennTrivialConv as conv\nfrom . import layers\n__all__ = ['ennConv']\n"
    assert imported_names(source) == {'ennConv', 'conv'}


def of_this_package(registry: Registry) -> dict[str, type]:
    return {name: kind for name, kind in registry.module_dict.items() if kind.__module__.startswith('mmrotate_plugin.')}


@pytest.mark.parametrize('name', [name for name in dir(roots) if isinstance(getattr(roots, name), Registry)])
def test_names_in_a_root_registry_are_found_with_the_scope(name):
    registry = getattr(roots, name)
    for key, kind in of_this_package(registry).items():
        assert registry.get(f'mmrotate_plugin.{key}') is kind


def test_a_name_in_a_registry_without_the_scope_is_not_found_with_it():
    @roots.LOOPS.register_module()
    class Loop: ...

    try:
        assert roots.LOOPS.get('Loop') is Loop and roots.LOOPS.get('mmrotate_plugin.Loop') is None
    finally:
        del roots.LOOPS.module_dict['Loop']
    assert len(of_this_package(roots.MODELS)) > 10 and of_this_package(roots.OPTIM_WRAPPERS)
