"""The set-up: its steps, what it repeats, and what it says where something is missing; with programs that pretend."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCK = ROOT / 'requirements.lock'
LEGACY = {'LOCK': 'requirements-legacy.lock', 'VENV': '.venv-legacy', 'STUB_WHEEL': 'mmcv'}

# Stands in for Python, pip included, and for uv, and notes what it was asked for.
STUB = r"""#!/usr/bin/env bash
case "$*" in
    --version) [[ $0 != *.venv* ]] || STUB_UV=0.13.9; echo "uv $STUB_UV"; exit ;;
    '-c '*get_path*) read -r version header _ <<< "$STUB_PYTHON"; echo "$version $header"; exit ;;
    '-ISc '*) exit ;;
    '-IS tools/setup') exec "$STUB_REAL" -I "$STUB_STEPS" "$0" ;;
    *choose_device.py) echo cpu; exit ;;
    '-c '*SOABI*) echo stub; exit ;;
    '-c import pip') exit ;;
    *try_operators.py | *nms_rotated*) set -- try ;;
esac
printf '%s\n' "$*" >> "$STUB_CALLS"
if [[ -n $STUB_FAIL && "$*" == *"$STUB_FAIL"* ]]; then echo "$STUB_REASON"; exit 1; fi
if [[ -n $STUB_HANG && "$*" == *"$STUB_HANG"* ]]; then echo $$ > "$STUB_CALLS.pid"; exec sleep 60; fi
case "$*" in
    '-m venv '* | 'venv '*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
    '-m pip install uv=='*) cp "$0" "$(dirname "$0")/uv" ;;
    '-m pip wheel'*)
        while [[ $1 != -w ]]; do shift; done
        mkdir -p "$2" && touch "$2/${STUB_WHEEL:-onedl_mmcv}-0-any.whl" ;;
esac
"""
# Runs the steps in a real Python that takes itself for another.
STEPS = r"""
import importlib.util, os, runpy, shutil, sys, sysconfig
from collections import namedtuple
version, header, venv = os.environ['STUB_PYTHON'].split()
sys.version_info = (*map(int, version.split('.')), 0, 'final', 0)
sys._base_executable = sys.argv[1]
sysconfig.get_path = lambda name: os.path.dirname(__file__) if header == 'True' else '/nowhere'
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == 'ensurepip' and venv == '0' else find_spec(name, *rest)
shutil.disk_usage = lambda path: namedtuple('Usage', 'free')(int(os.environ['STUB_GB']) * 2**30)
runpy.run_path('tools/setup', run_name='__main__')
"""


class Project:
    """A copy of what the set-up reads, with a Python that only pretends."""

    def __init__(self, path: Path) -> None:
        self.root = path / 'project'
        self.calls = path / 'calls'
        self.calls.touch()
        self.venv = self.root / '.venv'
        for name in ('tools/setup.sh', LOCK.name, LEGACY['LOCK'], 'pyproject.toml', 'mmrotate_plugin/version.py'):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        shutil.copytree(ROOT / 'tools/setup', self.root / 'tools/setup', ignore=shutil.ignore_patterns('__pycache__'))
        self.bin = path / 'bin'
        self.bin.mkdir()
        for name in ('python3', 'python3.13', 'python3.12', 'python3.11', 'uv'):
            file = self.bin / name
            file.write_text(STUB)
            file.chmod(file.stat().st_mode | stat.S_IXUSR)
        steps = path / 'steps.py'
        steps.write_text(STEPS)
        (path / 'Python.h').touch()
        self.env = {
            'PATH': f'{self.bin}:/usr/bin:/bin',
            'HOME': str(path),
            'CI': 'true',
            'CXX': 'true',
            'STUB_REAL': sys.executable,
            'STUB_STEPS': str(steps),
            'STUB_PYTHON': '3.11 True 1',
            'STUB_UV': '0.1.0',  # too old, so the set-up gets one of its own
            'STUB_GB': '100',
            'STUB_CALLS': str(self.calls),
            'MMROTATE_PLUGIN_CACHE': str(path / 'cache'),
        }

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
        """What the pretended programs were asked for since the last call, shortened."""
        lines = self.calls.read_text().splitlines()
        self.calls.write_text('')
        steps = r'-m venv|^venv|uv==|packages\.txt|sources\.txt|download|tarfile|pip wheel|\.whl|^try| -e |compileall'
        words = [re.search(steps, line) for line in lines]
        return [word[0].strip() if word else line for word, line in zip(words, lines, strict=True)]

    def change_lock(self, pattern: str, text: str) -> None:
        lock = self.root / LOCK.name
        changed, count = re.subn(f'(?m){pattern}', text, lock.read_text())
        assert count == 1
        lock.write_text(changed)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


COMPILE = ['download', 'tarfile', 'pip wheel', '.whl', 'try']
FULL = ['-m venv', 'uv==', 'packages.txt', 'sources.txt', *COMPILE, '-e', 'compileall', 'try']


def test_setup_runs_every_step_once_then_costs_nothing(project):
    code, out, err = project.setup()
    assert (code, err) == (0, '')
    assert project.done() == FULL
    assert '\033' not in out and '\r' not in out
    assert 'typically' in out.split('2.8 GB')[1].splitlines()[0]

    code, out, err = project.setup()
    assert (code, err) == (0, '') and 'up to date' in out
    assert project.done() == []


def test_packages_are_compiled_to_bytecode_and_one_that_cannot_be_stops_nothing(project):
    (project.root / 'mmrotate_plugin/__init__.py').touch()
    code, out, _ = project.setup(STUB_FAIL='compileall')
    assert code == 0 and out.endswith('is ready\n')
    (call,) = (line for line in project.calls.read_text().splitlines() if 'compileall' in line)
    assert call.endswith(f'{project.venv}/lib {project.root}/mmrotate_plugin')


def test_setup_takes_a_recent_uv_that_is_there(project):
    assert project.setup(STUB_UV='0.13.9')[0] == 0
    assert project.done() == ['venv', *FULL[2:]]


def test_uv_installs_what_the_lock_file_pins_but_for_the_package_that_is_compiled(project):
    assert project.setup(STUB_FAIL='sources.txt')[0] == 1
    wheels, sources = ((project.venv / f'.setup/tmp/{n}.txt').read_text().split() for n in ('packages', 'sources'))
    pins = [line for line in LOCK.read_text().splitlines() if re.match('[a-z]', line)]
    assert len(wheels) > 100 and len({*wheels, *sources}) == len([*wheels, *sources])
    assert [line for line in pins if line not in [*wheels, *sources]] == ['onedl-mmcv==2.3.6']
    assert sources and all(line.startswith('onedl-') for line in sources)  # they need torch when they are built
    call = next(line for line in project.calls.read_text().splitlines() if 'packages.txt' in line)
    assert '--no-deps' in call and f'--python {project.venv}/bin/python' in call


def test_uv_gets_the_index_of_pip_and_no_setting_that_leads_elsewhere(project):
    # a program named uv that prints its variables, and fails
    show = project.bin / 'uv'
    show.write_text('#!/bin/bash\n[[ $1 != --version ]] || { echo uv 9.9; exit; }\nenv; exit 1\n')
    env = {'PIP_INDEX_URL': 'https://index.invalid/simple', 'PYTHONPATH': '/x', 'PIP_TARGET': '/x', 'UV_TARGET': '/x'}
    assert project.setup(**env)[0] == 1
    said = (project.venv / 'setup-venv.log').read_text().splitlines()
    assert 'UV_DEFAULT_INDEX=https://index.invalid/simple' in said and 'UV_PYTHON_DOWNLOADS=never' in said
    assert [line for line in said if line.endswith('=/x')] == []
    assert project.setup(UV_DEFAULT_INDEX='https://other.invalid', **env)[0] == 1
    assert 'UV_DEFAULT_INDEX=https://other.invalid' in (project.venv / 'setup-venv.log').read_text().splitlines()


def test_setup_continues_after_an_interruption(project):
    process = project.start(STUB_HANG='packages.txt')
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


def test_setup_compiles_on_after_an_interruption(project):
    code, _, err = project.setup(STUB_FAIL='pip wheel', STUB_REASON='c++: fatal error: Killed signal')
    assert code == 1 and 'out of memory' in err
    assert project.done() == FULL[: FULL.index('pip wheel') + 1]
    assert project.setup()[0] == 0  # in the same folder, where what was compiled stays
    assert project.done() == FULL[FULL.index('pip wheel') :]


def test_setup_starts_a_half_made_environment_again_but_leaves_a_foreign_one(project):
    (project.venv / '.setup').mkdir(parents=True)  # the stamp of the finished environment is missing
    code, out, _ = project.setup(STUB_FAIL='uv==', STUB_REASON='ERROR: No matching distribution found for uv==1')
    assert code == 1 and 'starting it again' in out
    assert project.done() == FULL[:2]

    shutil.rmtree(project.venv)
    (project.venv / 'lib').mkdir(parents=True)
    code, _, err = project.setup()
    assert code == 1 and 'was not made by this set-up' in err and (project.venv / 'lib').is_dir()


def test_setup_repeats_only_what_a_changed_file_concerns(project):
    assert project.setup()[0] == 0
    project.done()
    project.change_lock(r'^pytest==\S+', 'pytest==0.1')
    assert project.setup()[0] == 0
    assert project.done() == ['packages.txt', 'sources.txt', '-e', 'compileall', 'try']  # uv looks for what has changed

    settings = project.root / 'pyproject.toml'
    settings.write_text(settings.read_text().replace('line-length = 120', 'line-length = 100'))
    assert project.setup()[1].endswith('is up to date\n')
    settings.write_text(settings.read_text().replace('[project.scripts]', '[project.scripts]\nother = "a:b"'))
    assert project.setup()[0] == 0
    assert project.done() == ['-e', 'compileall', 'try']


def test_setup_reuses_a_compiled_mmcv_only_for_the_same_torch_and_only_if_it_works(project):
    assert project.setup()[0] == 0
    project.done()
    shutil.rmtree(project.venv)
    assert project.setup()[0] == 0  # a second clone on the same machine
    assert project.done() == [*FULL[:4], '.whl', 'try', '-e', 'compileall', 'try']

    project.change_lock(r'^torch==\S+', 'torch==9.9')
    code, out, err = project.setup(STUB_FAIL='try', STUB_REASON='ImportError: undefined symbol: _ZN5torch')
    assert project.done() == ['packages.txt', 'sources.txt', *COMPILE]
    assert code == 1 and 'undefined symbol' in err and len(err.splitlines()) == 1
    assert 'setup-mmcv.log' in err

    shutil.rmtree(project.venv)
    shutil.copy(LOCK, project.root / LOCK.name)
    code, out, _ = project.setup(STUB_FAIL='try', STUB_REASON='ImportError: undefined symbol: _ZN5torch')
    assert code == 1 and 'the kept copy does not work' in out
    assert project.done() == [*FULL[:4], '.whl', 'try', *COMPILE]


ALL = '3.11, 3.12 or 3.13'


@pytest.mark.parametrize(
    'env, said',
    [
        ({'STUB_PYTHON': '3.8 True 1'}, [f'needs Python {ALL}', 'python3 is 3.8', 'PYTHON=']),
        ({'STUB_PYTHON': '3.10 True 1'}, [f'needs Python {ALL}', 'python3 is 3.10']),
        ({'STUB_PYTHON': '3.15 True 1'}, [f'needs Python {ALL}', 'python3 is 3.15']),
        ({'PYTHON': '/nowhere/python3'}, ['needs Python', 'none in /nowhere/python3']),
        ({'CXX': '/nowhere/c++'}, ['missing: a C++17 compiler;', 'apt-get install g++']),
        ({'STUB_PYTHON': '3.11 False 1'}, ['missing: Python.h of Python 3.11;', 'apt-get install python3.11-dev']),
        (
            {'STUB_PYTHON': '3.12 False 0', 'CXX': '/nowhere/c++'},
            ['uv, or the venv module of Python 3.12', 'apt-get install python3.12-venv g++ python3.12-dev'],
        ),
        ({'VENV': '/dev/null/venv'}, ['cannot write to /dev/null']),
    ],
)
def test_setup_says_in_one_line_what_is_missing(project, env, said):
    code, out, err = project.setup(**env)
    assert code == 1 and len(err.splitlines()) == 1 and out == ''
    assert [text for text in said if text not in err] == []
    assert project.done() == [] and not project.venv.exists()


def test_setup_needs_no_venv_module_where_uv_is(project):
    assert project.setup(STUB_PYTHON='3.11 True 0', STUB_UV='0.13.9')[0] == 0


def test_setup_takes_the_first_python_with_headers(project):
    (project.bin / 'python3').write_text('#!/bin/bash\nSTUB_PYTHON="3.12 False 1" exec "${0%3}3.13" "$@"\n')
    assert project.setup()[1].count(f'from {project.bin}/python3.13 (Python 3.11)') == 1


def test_setup_refuses_a_full_disk_before_it_begins(project):
    code, _, err = project.setup(STUB_GB='3')
    assert code == 1 and err.splitlines() == [
        f'set-up: needs 7 GB of free disk space at {project.venv}, but 3 GB are free'
    ]
    assert project.done() == []


@pytest.mark.parametrize(
    'reason, said',
    [
        ('OSError: [Errno 28] No space left on device', 'the disk is full'),
        ('cause: dns error: Temporary failure in name resolution', 'the package index cannot be reached'),
        ('error: Failed to fetch\n  cause: error sending request for url', 'the package index cannot be reached'),
        ('c++: fatal error: Killed signal terminated program cc1plus', 'out of memory (try MAX_JOBS=1)'),
        ('cause: Because there is no version of torch==2.12.1 and you', 'there is no version of torch==2.12.1'),
        ('warning: x\nerror: Failed to parse: y\n  hint: z', 'error: Failed to parse: y'),
    ],
)
def test_setup_gives_the_reason_of_a_failed_step_and_its_log(project, reason, said):
    code, _, err = project.setup(STUB_FAIL='packages.txt', STUB_REASON=reason)
    log = project.venv / 'setup-packages.log'
    assert code == 1 and err == f'set-up: packages failed: {err.split(": ", 2)[2]}' and len(err.splitlines()) == 1
    assert said in err and str(log) in err and reason in log.read_text()


def test_setup_keeps_an_environment_of_another_python_until_told(project):
    assert project.setup()[0] == 0
    project.done()
    other = {'PYTHON': 'python3.12', 'STUB_PYTHON': '3.12 True 1'}
    code, _, err = project.setup(**other)
    assert code == 1 and "was made with Python 3.11, not 3.12: run 'make clean' first" in err
    assert project.setup(PYTHON='python3.11')[1].endswith('is up to date\n')
    assert project.done() == []


def test_two_set_ups_at_a_time_make_one_environment(project):
    first = project.start(STUB_HANG='packages.txt')
    limit = time.monotonic() + 30
    pid_file = Path(f'{project.calls}.pid')
    while not (pid_file.exists() and pid_file.read_text().strip()) and time.monotonic() < limit:
        time.sleep(0.05)
    second = project.start()
    assert 'another set-up is running here' in second.stdout.readline()
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=30)
    assert 'done' in second.communicate(timeout=30)[0] and second.returncode == 0
    assert project.done() == [*FULL[:3], *FULL[2:]]


def test_setup_makes_the_original_stack_from_its_own_lock_file_beside_the_other(project):
    code, _, err = project.setup(**LEGACY, STUB_PYTHON='3.12 True 1')
    assert code == 1 and 'needs Python 3.11 (found: python3 is 3.12' in err and project.done() == []

    assert project.setup()[0] == 0
    project.done()
    assert project.setup(**LEGACY)[0] == 0
    assert (project.root / '.venv-legacy/.setup/done').is_file() and project.done() == FULL
    assert project.setup()[1].endswith('is up to date\n')  # that of the forks is as it was
    assert project.setup(**LEGACY)[1].endswith('.venv-legacy is up to date\n')


# ---- the commands


def plan_of(*arguments: str) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith(('MAKE', 'VENV'))}
    command = ['make', '-n', *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout


def test_ci_runs_make_test_and_that_sets_up_lints_and_tests():
    assert 'exec make test\n' in (ROOT / '.ci/run').read_text() and os.access(ROOT / '.ci/run', os.X_OK)
    steps = r'setup\.sh.*-m ruff check \..*-m ruff format --check.*-m mypy.*lint-imports.*-m pytest'
    assert re.search(steps, plan_of('test'), re.DOTALL)


def test_the_quick_lane_has_the_same_checks_and_fewer_tests():
    steps = r'setup\.sh.*-m ruff check \..*-m ruff format --check.*-m mypy.*lint-imports.*-m pytest .*tests/equivariant'
    assert re.search(steps, plan_of('quick'), re.DOTALL)


def test_coverage_is_measured_of_all_tests_and_fails_nothing():
    plan = plan_of('coverage')
    assert re.search(r'-m pytest .*--cov', plan) and '--cov-fail-under' not in plan


def test_make_test_legacy_sets_up_the_original_stack_and_tests_there():
    plan = plan_of('test-legacy', 'ARGS=tests/adf')
    assert re.search(r"LOCK=requirements-legacy.lock VENV='?\.venv-legacy.*setup\.sh\n", plan)
    assert re.search(r'\.venv-legacy/bin/python -m pytest .*tests/adf', plan)
    assert 'legacy' not in (ROOT / '.ci/run').read_text()
