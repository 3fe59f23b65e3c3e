"""Checkpoints are read whole and without running them; real ones of mmengine's Runner all load."""

import builtins
import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from torch import nn

from mmrotate_plugin.models import ReFPN, ReResNet, ResNet
from mmrotate_plugin.utils import safe_load
from mmrotate_plugin.utils.safe_load import CheckpointError, UnsafeCheckpointError, check_whole, load, loading

FUZZ = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(params=['torch', 'restricted'])
def unpickler(request, monkeypatch):
    """Both ways: torch's own unpickler, and the one for torch before 2.6."""
    if request.param == 'torch' and not safe_load.CHECKED_BY_TORCH:
        pytest.skip('this torch has none that takes further classes')
    monkeypatch.setattr(safe_load, 'CHECKED_BY_TORCH', request.param == 'torch')


both = pytest.mark.usefixtures('unpickler')


class Calls:
    """Pickled, a call of `function`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def evil(marker, place):
    """What someone could send as a checkpoint: it makes `marker`, from one place or another."""
    command = Calls(os.system, f'touch {marker}')
    buffer = HistoryBuffer([1.0], [1])
    buffer.extra = command
    opens = Calls(eval, f'open({str(marker)!r}, "w")')
    return {
        'top': command,
        'weights': {'state_dict': OrderedDict(a=torch.ones(2), b=command), 'meta': {}},
        'nested': {'state_dict': OrderedDict(a=torch.ones(2)), 'meta': {'x': [{'y': (1, command)}]}},
        'history': {'state_dict': OrderedDict(a=torch.ones(2)), 'message_hub': {'log_scalars': {'loss': buffer}}},
        'array': {'state_dict': OrderedDict(a=torch.ones(2)), 'x': np.array([command], dtype=object)},
        'key': {'state_dict': OrderedDict(a=torch.ones(2)), 'optimizer': {(1, opens): 1}},
    }[place]


PLACES = ['top', 'weights', 'nested', 'history', 'array', 'key']


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('new', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('place', PLACES)
@both
def test_nothing_in_a_malicious_checkpoint_runs(place, new, protocol, tmp_path):
    path, marker = tmp_path / 'evil.pth', tmp_path / 'marker'
    torch.save(evil(marker, place), path, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    with pytest.raises(UnsafeCheckpointError, match=r"evil\.pth' .* refused.*--unsafe-checkpoint") as error:
        load(path)
    assert not marker.exists()
    named = 'eval' if place == 'key' else f'{os.system.__module__}.system'
    refused_before = protocol == 4 or place == 'array'  # torch's unpickler knows neither the protocol nor object arrays
    assert f'{named}, which' in str(error.value) or (refused_before and safe_load.CHECKED_BY_TORCH)

    torch.load(path, weights_only=False)  # the control: it would have run
    assert marker.exists()


@both
def test_mmengines_loaders_run_nothing_either(tmp_path):
    path, marker = tmp_path / 'evil.pth', tmp_path / 'marker'
    torch.save(evil(marker, 'weights'), path)
    before = torch.load
    with loading():
        for read in (CheckpointLoader.load_checkpoint, torch.load, lambda p: torch.load(p, weights_only=False)):
            with pytest.raises(UnsafeCheckpointError, match='system'):
                read(str(path))
        with pytest.raises(UnsafeCheckpointError, match='pickle_module'):
            torch.load(path, pickle_module=pickle)
        with pytest.raises(UnsafeCheckpointError):
            load_checkpoint(nn.Linear(2, 2), str(path))
    assert not marker.exists() and torch.load is before

    with loading(unsafe=True), loading():  # an inner one leaves it as it is
        CheckpointLoader.load_checkpoint(str(path))
    assert marker.exists()


@pytest.mark.parametrize('make', [lambda **k: ResNet(18, base_channels=8, **k), lambda **k: ReFPN([8] * 4, 8, 4, **k),
                                  lambda **k: ReResNet(18, base_channels=8, **k)])  # fmt: skip
def test_pretrained_weights_of_our_networks_run_nothing(make, tmp_path):
    path, marker = tmp_path / 'evil.pth', tmp_path / 'marker'
    torch.save(evil(marker, 'weights'), path)
    with pytest.raises(UnsafeCheckpointError, match='system'):
        make(init_cfg=dict(type='Pretrained', checkpoint=str(path))).init_weights()
    assert not marker.exists()


@pytest.mark.parametrize(
    'function, args',
    [
        (getattr, (OrderedDict, 'fromkeys')),
        (getattr, (HistoryBuffer, '__init__')),
        (getattr, (HistoryBuffer([], []), 'mean')),
        (builtins.getattr, (torch.Tensor, 'numpy')),
        (builtins.exec, ('1',)),
        (__import__, ('os',)),
        (torch.storage._load_from_bytes, (b'',)),
        (torch.hub.load, ('x', 'y')),
        (np.load, ('x',)),
        (io.open, ('x', 'w')),
    ],
)
@both
def test_what_reaches_further_than_its_name_is_refused(function, args, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': {'x': Calls(function, *args)}}, 'x.pth')
    with pytest.raises(UnsafeCheckpointError, match='names|getattr'):
        load('x.pth')
    assert os.listdir() == ['x.pth']


@both
def test_other_formats_are_refused(tmp_path):
    script, tar, plain = tmp_path / 'script.pt', tmp_path / '\x80old.tar', tmp_path / 'plain.zip'
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), script)
    with tarfile.open(tar, 'w', format=tarfile.USTAR_FORMAT, encoding='latin-1') as archive:
        archive.add(script, arcname='\x80x')  # begins as a pickle does
    with zipfile.ZipFile(plain, 'w') as archive:
        archive.writestr('a/b', b'x')
    for path, text in ((script, 'TorchScript'), (tar, 'tar archive'), (plain, 'zip archive')):
        with pytest.raises(CheckpointError, match=text):
            load(path)
    with zipfile.ZipFile(tmp_path / 'bomb.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('x/data.pkl', bytes(10**7))
    with pytest.raises(CheckpointError, match='would unpack to 10000000'):
        load(tmp_path / 'bomb.pth')


# ---- real ones


class Small(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    def forward(self, inputs, mode='tensor', **_):
        out = self.layer(torch.stack(list(inputs)))
        return {'loss': out.square().mean()} if mode == 'loss' else [{'x': float(v.mean())} for v in out]


class Mean(BaseMetric):
    def process(self, _, outputs):
        self.results.extend(outputs)

    def compute_metrics(self, results):
        return {'mean': np.float32(np.mean([r['x'] for r in results]))}


class Points(torch.utils.data.Dataset):
    metainfo = ConfigDict(classes=('a', 'b'), skeleton=dict(links=[(0, 1)]))

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return {'inputs': torch.full((2,), float(i))}


def make_runner(work_dir, epochs, **more):
    loader = dict(batch_size=2, num_workers=0, dataset=Points(), sampler=dict(type='DefaultSampler', shuffle=False))
    schedule = [dict(type='MultiStepLR', milestones=[1, 1, 5]), dict(type='CosineAnnealingLR', T_max=9, by_epoch=False)]
    return Runner(
        Small(), str(work_dir), train_dataloader=loader, val_dataloader=loader, val_evaluator=Evaluator(Mean()),
        val_cfg=dict(), train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1), param_scheduler=schedule,
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01)),
        default_hooks=dict(checkpoint=CheckpointHook(1, save_best='mean', rule='less', max_keep_ckpts=2)),
        custom_hooks=[EMAHook()], experiment_name=f'x{id(work_dir)}{epochs}{len(more)}', **more,
    )  # fmt: skip


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Checkpoints of a training with AdamW, schedules, EMA, a message hub, and the best kept."""
    work_dir = tmp_path_factory.mktemp('run')
    make_runner(work_dir, 2).train()
    return work_dir


def same(a, b):
    if isinstance(a, (torch.Tensor, np.ndarray, np.generic)):  # numpy has two types of one number, q and l
        return isinstance(b, (torch.Tensor, np.ndarray, np.generic)) and a.dtype == b.dtype and bool((a == b).all())
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, HistoryBuffer):
        return type(a) is type(b) and same(vars(a), vars(b))
    return type(a) is type(b) and a == b


@both
def test_checkpoints_of_mmengines_runner_load_as_they_are(run):
    files = sorted(run.glob('*.pth'))
    assert len(files) == 3 and any('best' in file.name for file in files)
    for file in files:
        safe, plain = load(file), torch.load(file, weights_only=False)
        assert same(safe, plain) and {'message_hub', 'ema_state_dict', 'meta'} <= set(safe)
        assert not same(safe, {**plain, 'meta': {}})
        assert same(safe['state_dict']._metadata, plain['state_dict']._metadata)
        assert safe['message_hub']['log_scalars']['train/loss'].mean() > 0
    assert 'optimizer' in load(run / 'epoch_2.pth')
    assert isinstance(load(run / 'epoch_2.pth')['meta']['dataset_meta'], ConfigDict)


@both
def test_a_training_resumes_from_its_checkpoint(run, tmp_path):
    with loading():
        runner = make_runner(tmp_path, 3, load_from=str(run / 'epoch_2.pth'), resume=True)
        runner.train()
    assert runner.epoch == 3 and (tmp_path / 'epoch_3.pth').exists()


@pytest.mark.parametrize('code', safe_load.NUMBERS)
@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
@both
def test_numpys_numbers_and_arrays_load(code, core, tmp_path):
    values = {'scalar': np.dtype(code).type(1), 'array': np.arange(3).astype(code)}
    file = io.BytesIO()
    torch.save(values, file, _use_new_zipfile_serialization=False)
    own = (b'numpy._core' if hasattr(np, '_core') and np.__version__[0] != '1' else b'numpy.core') + b'.multiarray'
    assert file.getvalue().count(own)
    (tmp_path / 'x.pth').write_bytes(file.getvalue().replace(own, core.encode() + b'.multiarray'))  # of numpy 1 and 2
    assert same(load(tmp_path / 'x.pth'), values)


def test_pickled_tensors_still_pass_between_processes():
    tensor = torch.randn(3)
    with loading():
        assert torch.equal(pickle.loads(pickle.dumps(tensor)), tensor)
        assert torch.equal(torch.load(io.BytesIO(saved({'a': tensor})))['a'], tensor)


# ---- whole and damaged


def saved(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


VALUE = {'state_dict': OrderedDict(a=torch.arange(40.0), b=torch.ones(3)), 'meta': {'epoch': 1}}
BYTES = saved(VALUE)


@FUZZ
@given(cut=st.integers(0, len(BYTES) - 1))
def test_a_cut_file_is_noticed_wherever_it_was_cut(tmp_path, cut):
    (tmp_path / 'x.pth').write_bytes(BYTES[:cut])
    with pytest.raises(CheckpointError, match="x.pth' is not"):
        check_whole(tmp_path / 'x.pth')


@FUZZ
@given(place=st.integers(0, len(BYTES) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_changes_no_weight_unnoticed(tmp_path, place, bit):
    data = bytearray(BYTES)
    data[place] ^= 1 << bit
    (tmp_path / 'x.pth').write_bytes(data)
    try:
        found = load(tmp_path / 'x.pth')
    except CheckpointError:
        return
    assert same(found, VALUE)  # it was in the padding


def test_a_flipped_bit_in_a_weight_passes_torch_alone(tmp_path):
    start = BYTES.index(np.arange(40, dtype=np.float32).tobytes())
    data = bytearray(BYTES)
    data[start + 21] ^= 1
    (tmp_path / 'x.pth').write_bytes(data)
    assert not same(torch.load(tmp_path / 'x.pth', weights_only=True), VALUE)
    with pytest.raises(CheckpointError, match='checksum of its record'):
        check_whole(tmp_path / 'x.pth')


@FUZZ
@given(cut=st.integers(0, len(saved(VALUE, _use_new_zipfile_serialization=False)) - 1))
def test_a_cut_file_of_the_old_format_is_noticed(tmp_path, cut):
    (tmp_path / 'x.pth').write_bytes(saved(VALUE, _use_new_zipfile_serialization=False)[:cut])
    with pytest.raises(CheckpointError):
        check_whole(tmp_path / 'x.pth')


@FUZZ
@given(body=st.binary(max_size=200), protocol=st.sampled_from([b'\x80\x02', b'\x80\x04', b'PK\x03\x04', b'']))
def test_any_bytes_are_refused_with_one_kind_of_error(tmp_path, body, protocol):
    (tmp_path / 'x.pth').write_bytes(protocol + body)
    for checked_by_torch in {False, safe_load.CHECKED_BY_TORCH}:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(safe_load, 'CHECKED_BY_TORCH', checked_by_torch)
            with pytest.raises(CheckpointError, match=r'x\.pth'):
                load(tmp_path / 'x.pth')


def test_a_missing_file_is_missing_and_no_checksums_are_no_damage(tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist'):
        load(tmp_path / 'none.pth')
    with pytest.raises(FileNotFoundError, match='is a folder'):
        load(tmp_path)
    assert same(load(io.BytesIO(BYTES)), VALUE)
    set_crc = getattr(torch.serialization, 'set_crc32_options', None)
    if set_crc is None:
        pytest.skip('this torch always writes checksums')
    set_crc(False)
    try:
        torch.save(VALUE, tmp_path / 'x.pth')
    finally:
        set_crc(True)
    assert same(load(tmp_path / 'x.pth'), VALUE)
