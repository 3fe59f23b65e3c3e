import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope, Registry

import mmrotate_plugin  # noqa: F401
from mmrotate_plugin.models import ReFPN, ReResNet
from mmrotate_plugin.registry import DATASETS, HOOKS, HOSTED, METRICS, MODELS, OPTIM_WRAPPERS, TRANSFORMS, register

needs_mmrotate = pytest.mark.skipif(find_spec('mmrotate') is None, reason='needs mmrotate, which is not installed')


# what none of the tests is about is imported once, with what mmdet and mmrotate import in their turn; each code runs in
# a fork, since registries live as long as a process
FORKS = """
import contextlib, importlib, json, os, sys, traceback
import torch, mmcv.ops, mmengine.registry
for name in 'e2cnn.nn', 'imgaug.augmenters', 'matplotlib.pyplot', 'scipy.stats', 'torch._dynamo', 'torchvision.ops':
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
for line in sys.stdin:
    code, file = json.loads(line)
    process = os.fork()
    if process == 0:
        status = 1
        try:
            with open(file, 'w') as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                try:
                    exec(code, {'__name__': '__main__'})
                    status = 0
                except BaseException:
                    traceback.print_exc()
        finally:
            os._exit(status)
    print(os.waitpid(process, 0)[1], flush=True)
"""


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Run code in a process that has imported neither this package nor its hosts; returns what it printed."""
    file = tmp_path_factory.mktemp('forks') / 'output.txt'
    words = [sys.executable, '-W', 'ignore', '-c', FORKS]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def run(code):
            process.stdin.write(json.dumps([code, str(file)]) + '\n')
            process.stdin.flush()
            status = process.stdout.readline().strip()
            assert status == '0', file.read_text()[-2000:]
            return file.read_text()

        yield run
        process.stdin.close()


@pytest.mark.parametrize('scope', ['mmdet', 'mmengine', 'mmrotate_plugin'])
def test_bare_names_are_found_from(scope):
    with DefaultScope.overwrite_default_scope(scope), ROOT.switch_scope_and_registry(scope) as registry:
        assert registry.get('ReResNet') is ReResNet
        assert registry.get('ennConv') is MODELS.get('ennConv') is not None


@needs_mmrotate
def test_mmdet_and_mmrotate_keep_their_own_names(run):
    from mmdet.models import ResNet as MMDetResNet
    from mmdet.registry import MODELS as MMDET

    assert MMDET.get('ResNet') is MMDetResNet
    code = (
        'import mmrotate_plugin, mmrotate.models\n'
        'from mmrotate.registry import MODELS\n'
        'assert MODELS.get("ReResNet").__module__.startswith("mmrotate.")\n'
        'assert MODELS.get("mmrotate_plugin.ReResNet").__module__.startswith("mmrotate_plugin.")'
    )
    run(code)


def test_a_failure_would_be_seen(run):
    with pytest.raises(AssertionError, match='ModuleNotFoundError'):
        run('import mmrotate_plugin.nowhere')
    run('import sys; assert not {"mmrotate_plugin", "mmdet", "mmrotate"} & set(sys.modules)')  # nor by a test before


def test_scoped_name_works_before_anybody_imports_the_package(run):
    run(
        'from mmengine.registry import MODELS\n'
        'net = MODELS.build(dict(type="mmrotate_plugin.ReResNet", depth=18, base_channels=16))\n'
        'assert type(net).__module__.startswith("mmrotate_plugin.")'
    )


OVERRIDDEN_REDET = """
import os, torch, mmrotate, mmrotate_plugin.override_mmrotate
from mmengine import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from mmdet.structures import DetDataSample
from mmrotate.structures import RotatedBoxes
from mmrotate.utils import register_all_modules
import logging; from mmengine.logging import MMLogger; MMLogger.get_instance('x').setLevel(logging.ERROR)

torch.manual_seed(0)
torch.set_num_threads(1)
register_all_modules(init_default_scope=True)
path = os.path.dirname(mmrotate.__file__) + '/.mim/configs/redet/redet-le90_re50_refpn_1x_dota.py'
cfg = Config.fromfile(path).model
cfg.backbone.init_cfg = None
for head in cfg.roi_head.bbox_head:
    head.fc_out_channels = 32  # of 1024, which take seconds
net = MODELS.build(cfg)
sample = DetDataSample(metainfo=dict(img_shape=(129, 129), ori_shape=(129, 129), scale_factor=(1.0, 1.0)))
boxes = RotatedBoxes(torch.tensor([[40, 50, 40, 16, 0.3], [90, 80, 24, 24, -0.4]]))
sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 3]))
sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long))
batch = dict(inputs=[torch.randint(0, 255, (3, 129, 129), dtype=torch.uint8)], data_samples=[sample])
loss, _ = net.parse_losses(net(**net.data_preprocessor(batch, True), mode='loss'))
loss.backward()
assert torch.isfinite(loss)
assert all(p.grad is not None for p in net.backbone.parameters() if p.requires_grad)
with torch.no_grad():
    net.eval()(**net.data_preprocessor(batch, False), mode='predict')
layer = net.roi_head.bbox_roi_extractor[1].roi_layers[0]
print(*(type(m).__module__.split('.')[0] for m in (net.backbone, net.neck, layer)))
"""


@pytest.mark.slow
@needs_mmrotate
def test_override_makes_an_unmodified_redet_config_train_and_predict_on_the_cpu(run):
    assert run(OVERRIDDEN_REDET).splitlines()[-1] == 'mmrotate_plugin mmrotate_plugin mmrotate_plugin'


def test_register_puts_a_class_into_both_registries():
    root = Registry('thing')
    child = Registry('thing', parent=root, scope='child')

    @register(child)
    class Thing: ...

    assert root.get('Thing') is child.get('Thing') is Thing
    with pytest.raises(ValueError, match='has no root above it'):
        register(root)


@pytest.mark.parametrize(
    'registry, least',
    [(MODELS, 13), (DATASETS, 2), (TRANSFORMS, 1), (HOOKS, 2), (METRICS, 1), (OPTIM_WRAPPERS, 1)],
)
def test_every_registered_name_builds_or_names_what_it_needs(registry, least):
    names = list(registry.module_dict)
    assert len(names) >= least
    for name in names:
        assert registry.get(f'mmrotate_plugin.{name}') is registry.module_dict[name]


BUILDS = {
    'ADFResNet': dict(depth=18, base_channels=16),
    'ReResNet': dict(depth=18, base_channels=16),
    'ResNet': dict(depth=18, base_channels=16),
    'ReFPN': dict(in_channels=[16], out_channels=16, num_outs=1),
    'ennConv': dict(in_channels=16, out_channels=16, kernel_size=3),
    'ennTrivialConv': dict(in_channels=3, out_channels=16, kernel_size=3),
    'ennBN': dict(num_features=16),
    'ennSyncBN': dict(num_features=16),
    'ennGN': dict(num_features=16, num_groups=2),
    'ennReLU': dict(),
    'ennMaxPool': dict(kernel_size=3),
    'ennAvgPool': dict(kernel_size=3),
    'ennGroupPool': dict(num_features=16),
    'ennInterpolate': dict(scale_factor=2),
    'ennFourierReLU': dict(),
    'ennBlurPool': dict(),
    'ennMaxBlurPool': dict(),
    'ennBlurUpsample': dict(),
    'ennIrrepConv': dict(in_channels=16, frequencies=(0, 1), kernel_size=3),
    'ennSqueezeExcite': dict(num_features=16),
    'HeteroscedasticLoss': dict(columns=5),
    'RiRoIAlignRotated': dict(out_size=7, spatial_scale=0.25),
}


def test_every_model_builds_from_its_name():
    assert set(BUILDS) == set(MODELS.module_dict) - set(HOSTED)
    for name, options in BUILDS.items():
        assert type(ROOT.build(dict(type=f'mmrotate_plugin.{name}', **options))).__name__ == name
    assert ReFPN in MODELS.module_dict.values()


def test_classes_that_need_a_host_are_imported_when_they_are_asked_for(run):
    run(
        'import sys, mmrotate_plugin\n'
        'from mmengine.registry import MODELS\n'
        'assert "mmdet" not in sys.modules\n'
        'assert MODELS.get("mmrotate_plugin.ReDet").__module__ == "mmrotate_plugin.models.detectors.redet"\n'
        'assert "mmdet" in sys.modules'
    )


def test_backbones_import_without_mmdet_and_mmrotate(run):
    run(
        'import sys\n'
        'for name in ("mmdet", "mmrotate"): sys.modules[name] = None\n'
        'import mmrotate_plugin, torch\n'
        'from mmengine.registry import MODELS\n'
        'MODELS.build(dict(type="ReResNet", depth=18, base_channels=16))(torch.randn(1, 3, 33, 33))'
    )


# heavy, and no class that is registered needs it
LATE = """
import sys
before = set(sys.modules)
import mmrotate_plugin
LATE = (
    'mmdet', 'mmrotate', 'pycocotools', 'jinja2', 'matplotlib', 'rasterio', 'onnx', 'triton', 'torch._dynamo',
    'torch.utils.flop_counter', 'mmengine.analysis',
)
def imported():
    new = set(sys.modules) - before
    return [name for name in LATE if any(f'{module}.'.startswith(f'{name}.') for module in new)]
assert imported() == [], imported()
"""


def test_what_only_some_programs_use_is_imported_when_it_is_used(run):
    """The second half also shows that `imported` would see it in the first, and that a late counter is mended."""
    run(
        LATE
        + 'from mmengine.analysis import FlopAnalyzer\n'
        + 'assert "mmengine.analysis" in imported() and hasattr(FlopAnalyzer._analyze, "__wrapped__")'
    )
