"""The set-up, the lock file, the metadata, and what an import says where something is missing."""

import email
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mmrotate_plugin._dependencies import check_dependencies

ROOT = Path(__file__).parents[1]
LOCK = ROOT / 'requirements.lock'
LEGACY = {'LOCK': 'requirements-legacy.lock', 'VENV': '.venv-legacy', 'STUB_WHEEL': 'mmcv'}
# what each lock file leaves out of the dependencies: opencv-python needs libGL, triton needs a GPU
LOCKS = {'requirements.lock': {'opencv-python'}, LEGACY['LOCK']: {'opencv-python', 'triton'}}

# Stands in for Python, pip included, and notes what it was asked for.
STUB = r"""#!/usr/bin/env bash
case "$1 $2" in
    '-c '*ensurepip*) echo "$STUB_PYTHON"; exit ;;
    '-c '*CUDA_HOME*) echo cpu; exit ;;
    '-c '*SOABI*) echo stub; exit ;;
    '-c import pip') exit ;;
    '-m virtualenv') exit 1 ;;
    '-c '*nms_rotated*) set -- try ;;
esac
printf '%s\n' "$*" >> "$STUB_CALLS"
if [[ -n $STUB_FAIL && "$*" == *"$STUB_FAIL"* ]]; then echo "$STUB_REASON"; exit 1; fi
if [[ -n $STUB_HANG && "$*" == *"$STUB_HANG"* ]]; then echo $$ > "$STUB_CALLS.pid"; exec sleep 60; fi
case "$1 $2 $3" in
    '-m venv '*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    '-m pip wheel')
        while [[ $1 != -w ]]; do shift; done
        mkdir -p "$2" && touch "$2/${STUB_WHEEL:-onedl_mmcv}-0-any.whl" ;;
esac
"""


class Project:
    """A copy of what the set-up reads, with a Python that only pretends."""

    def __init__(self, path: Path) -> None:
        self.root = path / 'project'
        self.calls = path / 'calls'
        self.calls.touch()
        self.venv = self.root / '.venv'
        for name in ('tools/setup.sh', *LOCKS, 'setup.py', 'mmrotate_plugin/version.py'):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        self.bin = path / 'bin'
        self.bin.mkdir()
        for name in ('python3', 'python3.12', 'python3.11', 'python3.10'):
            self.program(name, STUB)
        self.env = {
            'PATH': f'{self.bin}:/usr/bin:/bin',
            'HOME': str(path),
            'CI': 'true',
            'CXX': 'true',
            'STUB_PYTHON': '3.11 1 1',
            'STUB_CALLS': str(self.calls),
            'MMROTATE_PLUGIN_CACHE': str(path / 'cache'),
        }

    def program(self, name: str, text: str) -> None:
        file = self.bin / name
        file.write_text(text)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def start(self, **env: str) -> subprocess.Popen:
        return subprocess.Popen(
            ['bash', 'tools/setup.sh'],
            cwd=self.root,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def setup(self, **env: str) -> tuple[int, str, str]:
        process = self.start(**env)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def done(self) -> list[str]:
        """What the pretended Python was asked for since the last call, shortened."""
        lines = self.calls.read_text().splitlines()
        self.calls.write_text('')
        steps = r'-m venv|tools\.txt|torch\.txt|libraries\.txt|download|tarfile|pip wheel|\.whl|^try| -e '
        words = [re.search(steps, line) for line in lines]
        return [word[0].strip() if word else line for word, line in zip(words, lines, strict=True)]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


COMPILE = ['download', 'tarfile', 'pip wheel', '.whl', 'try']
FULL = ['-m venv', 'tools.txt', 'torch.txt', 'libraries.txt', *COMPILE, '-e', 'try']


def test_setup_runs_every_step_once_then_costs_nothing(project):
    code, out, err = project.setup()
    assert (code, err) == (0, '')
    assert project.done() == FULL
    assert '\033' not in out and '\r' not in out
    assert 'typically' in out.split('2.8 GB')[1].splitlines()[0]

    code, out, err = project.setup()
    assert (code, err) == (0, '') and 'up to date' in out
    assert project.done() == []


def test_setup_continues_after_an_interruption(project):
    process = project.start(STUB_HANG='torch.txt')
    pid_file = Path(f'{project.calls}.pid')
    limit = time.monotonic() + 30
    while not (pid_file.exists() and pid_file.read_text().strip()) and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and 'the next run continues' in err
    with pytest.raises(ProcessLookupError):  # what it had started is gone too
        os.kill(int(pid_file.read_text()), 0)
    assert project.done() == FULL[:3]

    assert project.setup()[0] == 0
    assert project.done() == FULL[2:]


def test_setup_starts_a_half_made_environment_again_but_leaves_a_foreign_one(project):
    (project.venv / '.setup').mkdir(parents=True)  # the stamp of the finished environment is missing
    code, out, _ = project.setup(STUB_FAIL='tools.txt', STUB_REASON='ERROR: No matching distribution found for pip==26')
    assert code == 1 and 'starting it again' in out
    assert project.done() == FULL[:2]

    shutil.rmtree(project.venv)
    (project.venv / 'lib').mkdir(parents=True)
    code, _, err = project.setup()
    assert code == 1 and 'was not made by this set-up' in err and (project.venv / 'lib').is_dir()


def test_setup_repeats_only_what_a_changed_lock_file_concerns(project):
    assert project.setup()[0] == 0
    project.done()
    lock = project.root / 'requirements.lock'
    lock.write_text(re.sub(r'pytest==\S+', 'pytest==0.1', lock.read_text()))
    assert project.setup()[0] == 0
    assert project.done() == ['libraries.txt', 'try']


def test_setup_reuses_a_compiled_mmcv_only_for_the_same_torch_and_only_if_it_works(project):
    assert project.setup()[0] == 0
    project.done()
    shutil.rmtree(project.venv)
    assert project.setup()[0] == 0  # a second clone on the same machine
    assert project.done() == [*FULL[:4], '.whl', 'try', '-e', 'try']

    lock = project.root / 'requirements.lock'
    lock.write_text(re.sub(r'(?m)^torch==\S+', 'torch==9.9', lock.read_text()))
    code, out, err = project.setup(STUB_FAIL='try', STUB_REASON='ImportError: undefined symbol: _ZN5torch')
    assert project.done() == ['torch.txt', *COMPILE]
    assert code == 1 and 'undefined symbol' in err and len(err.splitlines()) == 1
    assert 'setup-mmcv.log' in err

    shutil.rmtree(project.venv)
    lock.write_text(LOCK.read_text())
    code, out, _ = project.setup(STUB_FAIL='try', STUB_REASON='ImportError: undefined symbol: _ZN5torch')
    assert code == 1 and 'the kept copy does not work' in out
    assert project.done() == [*FULL[:4], '.whl', 'try', *COMPILE]


@pytest.mark.parametrize(
    'env, said',
    [
        ({'STUB_PYTHON': '3.8 1 1'}, ['needs Python 3.10, 3.11 or 3.12', 'python3 is 3.8', 'PYTHON=']),
        ({'STUB_PYTHON': '3.13 1 1'}, ['needs Python 3.10, 3.11 or 3.12', 'python3 is 3.13']),
        ({'PYTHON': '/nowhere/python3'}, ['needs Python', 'none in /nowhere/python3']),
        ({'CXX': '/nowhere/c++'}, ['missing: a C++17 compiler;', 'apt-get install g++']),
        ({'STUB_PYTHON': '3.11 0 1'}, ['missing: Python.h of Python 3.11;', 'apt-get install python3.11-dev']),
        (
            {'STUB_PYTHON': '3.12 0 0', 'CXX': '/nowhere/c++'},
            ['the venv module of Python 3.12', 'apt-get install python3.12-venv g++ python3.12-dev'],
        ),
        ({'VENV': '/dev/null/venv'}, ['cannot write to /dev/null']),
    ],
)
def test_setup_says_in_one_line_what_is_missing(project, env, said):
    if env.get('STUB_PYTHON', '').endswith('0 0') and shutil.which('virtualenv', path='/usr/bin:/bin'):
        pytest.skip('virtualenv stands in for venv here')
    code, out, err = project.setup(**env)
    assert code == 1 and len(err.splitlines()) == 1 and out == ''
    assert [text for text in said if text not in err] == []
    assert project.done() == [] and not project.venv.exists()


def test_setup_refuses_a_full_disk_before_it_begins(project):
    project.program('df', 'echo header\necho "/dev/x 99999999 1 3145728 99% /"\n')
    code, _, err = project.setup()
    assert code == 1 and err.splitlines() == [
        f'set-up: needs 9 GB of free disk space at {project.venv}, but 3 GB are free'
    ]
    assert project.done() == []


@pytest.mark.parametrize(
    'reason, said',
    [
        ('OSError: [Errno 28] No space left on device', 'the disk is full'),
        ('NewConnectionError: [Errno -3] Temporary failure in name resolution', 'the package index cannot be reached'),
        ('c++: fatal error: Killed signal terminated program cc1plus', 'out of memory (try MAX_JOBS=1)'),
        ('ERROR: No matching distribution found for torch==2.12.1', 'No matching distribution found for torch==2.12.1'),
    ],
)
def test_setup_gives_the_reason_of_a_failed_step_and_its_log(project, reason, said):
    code, _, err = project.setup(STUB_FAIL='torch.txt', STUB_REASON=reason)
    log = project.venv / 'setup-torch.log'
    assert code == 1 and err == f'set-up: torch failed: {err.split(": ", 2)[2]}' and len(err.splitlines()) == 1
    assert said in err and str(log) in err and reason in log.read_text()


def test_setup_keeps_an_environment_of_another_python_until_told(project):
    assert project.setup()[0] == 0
    project.done()
    other = {'PYTHON': 'python3.12', 'STUB_PYTHON': '3.12 1 1'}
    code, _, err = project.setup(**other)
    assert code == 1 and "was made with Python 3.11, not 3.12: run 'make clean' first" in err
    assert project.setup(PYTHON='python3.11')[1].endswith('is up to date\n')
    assert project.done() == []


def test_ci_runs_make_test_and_that_sets_up_lints_and_tests():
    assert 'exec make test\n' in (ROOT / '.ci/run').read_text() and os.access(ROOT / '.ci/run', os.X_OK)
    env = {key: value for key, value in os.environ.items() if not key.startswith('MAKE')}
    plan = subprocess.run(['make', '-n', 'test'], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    assert re.search(r'setup\.sh.*-m ruff check \..*-m pytest', plan, re.DOTALL)


def test_setup_makes_the_original_stack_from_its_own_lock_file_beside_the_other(project):
    code, _, err = project.setup(**LEGACY, STUB_PYTHON='3.12 1 1')
    assert code == 1 and 'needs Python 3.11 (found: python3 is 3.12' in err and project.done() == []

    assert project.setup()[0] == 0
    project.done()
    assert project.setup(**LEGACY)[0] == 0
    assert (project.root / '.venv-legacy/.setup/done').is_file() and project.done() == FULL
    assert project.setup()[1].endswith('is up to date\n')  # that of the forks is as it was
    assert project.setup(**LEGACY)[1].endswith('.venv-legacy is up to date\n')


def test_make_test_legacy_sets_up_the_original_stack_and_tests_there():
    env = {key: value for key, value in os.environ.items() if not key.startswith(('MAKE', 'VENV'))}
    command = ['make', '-n', 'test-legacy', 'ARGS=tests/adf']
    plan = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    assert re.search(r"LOCK=requirements-legacy.lock VENV='?\.venv-legacy.*setup\.sh\n", plan)
    assert re.search(r'\.venv-legacy/bin/python -m pytest .*tests/adf', plan)
    assert 'legacy' not in (ROOT / '.ci/run').read_text()


# ---- the lock files


def locked(name: str = LOCK.name) -> dict[str, str]:
    lines = [line.split(' #')[0].strip() for line in (ROOT / name).read_text().splitlines()]
    lines = [line for line in lines if line and not line.startswith('#')]
    loose = [line for line in lines if not re.fullmatch(r'[A-Za-z0-9][\w.-]*==\d[\w.]*', line)]
    assert loose == []
    pins = [(canonicalize_name(line.split('==')[0]), line.split('==')[1]) for line in lines]
    assert len(dict(pins)) == len(pins)
    return dict(pins)


def test_lock_pins_everything_once():
    pins = locked()
    assert {'torch', 'onedl-mmcv', 'onedl-mmengine', 'onedl-mmdetection', 'onedl-mmrotate', 'e2cnn'} <= set(pins)
    assert {'pytest', 'hypothesis', 'ruff'} <= set(pins)
    assert 'opencv-python' not in pins  # would need libGL


def test_legacy_lock_pins_the_original_stack():
    pins = locked(LEGACY['LOCK'])
    original = dict(torch='2.0.1', torchvision='0.15.2', mmcv='2.0.1', mmengine='0.10.7', mmdet='3.0.0')
    assert original.items() <= pins.items() and pins['numpy'].startswith('1.26.')
    assert int(pins['setuptools'].split('.')[0]) < 70
    assert not [name for name in pins if name.startswith('onedl')] and 'mmrotate' not in pins
    shared = set(pins) & set(locked()) & {'e2cnn', 'pytest', 'hypothesis', 'scipy', 'tensorboard'}
    assert len(shared) == 5 and {name: pins[name] for name in shared} == {name: locked()[name] for name in shared}


def test_lock_has_every_dependency_at_a_version_that_fits():
    here = LEGACY['LOCK'] if metadata.version('torch') == locked(LEGACY['LOCK'])['torch'] else LOCK.name
    pins, wrong, seen = locked(here), [], 0
    for name in pins:
        try:
            requirements = metadata.distribution(name).requires or []
        except metadata.PackageNotFoundError:
            continue
        seen += 1
        for text in requirements:
            need = Requirement(text)
            if need.marker and not need.marker.evaluate({'extra': ''}):
                continue
            pin = pins.get(canonicalize_name(need.name))
            if need.name not in LOCKS[here] and (pin is None or not need.specifier.contains(pin, prereleases=True)):
                wrong.append(f'{name} needs {text}, locked is {pin}')
    assert wrong == []
    assert seen > 40


# ---- the distribution


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy: pip builds in place and would leave its traces in the checkout."""
    path = tmp_path_factory.mktemp('wheel')
    for name in ('mmrotate_plugin', 'configs'):
        ignore = shutil.ignore_patterns('__pycache__')
        shutil.copytree(ROOT / name, path / 'source' / name, symlinks=True, ignore=ignore)
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'model-index.yml'):
        shutil.copy(ROOT / name, path / 'source' / name)
    command = [
        sys.executable,
        '-m',
        'pip',
        'wheel',
        '--no-deps',
        '--no-index',
        '--no-build-isolation',
        '--no-cache-dir',
    ]
    result = subprocess.run([*command, '-w', path, path / 'source'], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return zipfile.ZipFile(next(path.glob('mmrotate_plugin-*.whl')))


def test_wheel_holds_all_modules_and_configs(wheel):
    have = set(wheel.namelist())
    modules = {str(file.relative_to(ROOT)) for file in (ROOT / 'mmrotate_plugin').rglob('*.py')}
    configs = {f'mmrotate_plugin/.mim/{file.relative_to(ROOT)}' for file in (ROOT / 'configs').rglob('*.py')}
    configs |= {f'mmrotate_plugin/.mim/{file.relative_to(ROOT)}' for file in (ROOT / 'configs').rglob('*.yml')}
    assert modules - have == set() and configs - have == set() and configs
    assert {'mmrotate_plugin/py.typed', 'mmrotate_plugin/.mim/model-index.yml'} <= have
    assert any(name.endswith('/LICENSE') for name in have)
    assert not any(name.startswith(('tests', 'tools')) for name in have)


def test_distribution_requires_nothing_that_an_openmmlab_environment_has_its_own_of(wheel):
    info = email.message_from_bytes(wheel.read(next(n for n in wheel.namelist() if n.endswith('/METADATA'))))
    needs = [Requirement(text) for text in info.get_all('Requires-Dist')]
    hard = {need.name for need in needs if need.marker is None}
    extras = {
        extra: {need.name for need in needs if need.marker and need.marker.evaluate({'extra': extra})}
        for extra in info.get_all('Provides-Extra')
    }
    assert hard == {'e2cnn'}
    assert extras['onedl'] == {'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmrotate'}
    assert extras['openmmlab'] == {'mmengine', 'mmcv', 'mmdet', 'mmrotate'}
    assert info['Requires-Python'] == '>=3.10' and info['Version'] == '0.1.0'


def test_configs_are_found_by_the_name_of_the_package(tmp_path):
    from mmengine.config import Config

    import mmrotate_plugin

    name = min(file.relative_to(ROOT / 'configs') for file in (ROOT / 'configs').glob('[!_]*/*.py'))
    config = tmp_path / 'mine.py'
    config.write_text(f"_base_ = 'mmrotate_plugin::{name}'\nmine = 1\n")
    found = Config.fromfile(config)
    assert found.mine == 1 and len(found) > 1
    assert (Path(mmrotate_plugin.__file__).parent / '.mim' / 'configs' / name).is_file()


# ---- what an import says


def test_import_without_mmcv_names_it_and_both_ways_to_install():
    # stubs, since importing the real ones takes seconds
    script = f"""
import sys, types
sys.path.insert(0, {str(ROOT)!r})
sys.modules.update(torch=types.ModuleType('torch'), e2cnn=types.ModuleType('e2cnn'), mmcv=None, mmengine=None)
import mmrotate_plugin
"""
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=False)
    last = result.stderr.splitlines()[-1]
    assert last.startswith('ImportError: mmrotate_plugin needs mmengine, mmcv')
    assert "'onedl-mmengine' 'onedl-mmcv'" in last and "'mmengine>=0.8' 'mmcv>=2.0,<2.2'" in last
    assert result.stderr.count('Traceback') == 1


def test_broken_dependency_is_not_called_missing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'broken_one.py').write_text("raise ImportError('needs mmengine<1')\n")
    (tmp_path / 'broken_two.py').write_text('import does_not_exist_at_all\n')
    (tmp_path / 'broken_three.py').write_text("assert False, 'MMCV==9 is incompatible'\n")
    for name, text in [('broken_one', 'needs mmengine<1'), ('broken_two', "No module named 'does_not_exist_at_all'")]:
        with pytest.raises(ImportError, match='does not import') as error:
            check_dependencies({name: (name, name)})
        assert text in str(error.value) and text in str(error.value.__cause__)
    with pytest.raises(AssertionError, match='MMCV==9'):
        check_dependencies({'broken_three': ('x', 'x')})


def test_dependencies_that_are_there_pass():
    check_dependencies()
    with pytest.raises(ImportError, match=r"needs nope_a, nope_b, .*'fork-a' 'fork-b'.*'a>=1' 'b>=1'"):
        check_dependencies({'nope_a': ('fork-a', 'a>=1'), 'email': ('x', 'x'), 'nope_b': ('fork-b', 'b>=1')})
