"""Make the development environment: pinned packages, mmcv's operators compiled and tried out, this package in place.

uv finds out what is missing and installs it; here is what uv lacks. Each step leaves a stamp in .venv/.setup that holds
a hash of what the step depends on, so that an interrupted run, or one with a changed lock file, repeats only what is
missing.

Variables, all optional; those of uv and pip, such as UV_DEFAULT_INDEX, hold too:
    VENV                   where to make it (default: .venv)
    LOCK                   the packages, in the layout of requirements.lock, which is the default
    MAX_JOBS               files to compile at once (default: by cores and free memory)
    MMROTATE_PLUGIN_CACHE  where compiled mmcv wheels are kept for the next clone (default: ~/.cache/mmrotate_plugin;
                           empty: nowhere)
"""

import fcntl
import json
import os
import re
import shutil
import sys
import sysconfig
import tomllib
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from operators import HERE, install_mmcv
from running import Runner, SetupError, answer, main, say

ROOT = HERE.parents[1]
VENV = ROOT / os.environ['VENV']
NAME = VENV.relative_to(ROOT) if VENV.is_relative_to(ROOT) else VENV
STATE, PYTHON = VENV / '.setup', VENV / 'bin/python'
BASE = getattr(sys, '_base_executable', sys.executable)  # what the environment was, or will be, made with
MINOR = f'{sys.version_info[0]}.{sys.version_info[1]}'
OLDEST_UV = (0, 5)
ELSEWHERE = {'PYTHONPATH', 'PYTHONHOME', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_USER', 'PIP_REQUIRE_VIRTUALENV', 'UV_TARGET'}

LOCK = (ROOT / os.environ['LOCK']).read_text(encoding='utf-8')
OWN = sorted(file.parent for file in ROOT.glob('mmrotate_plugin*/__init__.py'))
PINS = dict(re.findall(r'^([A-Za-z0-9][\w.-]*)==([\w.]+)', LOCK, re.MULTILINE))
MMCV = 'onedl-mmcv' if 'onedl-mmcv' in PINS else 'mmcv'
PACKAGES = [f'{name}=={version}' for name, version in PINS.items() if name != MMCV]


def hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def all_keys() -> dict[str, str]:
    """What each step depends on."""
    # of pyproject.toml what an installation depends on; a rule of the linter changes nothing here
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))
    about = json.dumps([project['build-system'], project['project'], project['tool']['setuptools']])
    version = (ROOT / 'mmrotate_plugin/version.py').read_text(encoding='utf-8')
    mmcv = f'{MMCV}=={PINS[MMCV]}\n{PINS["torch"]}\n'
    compiled = [file.read_text(encoding='utf-8') for file in sorted(ROOT.glob('mmrotate_plugin/kernels/*.[ch]'))]
    importable = [folder.name for folder in OWN]
    everything = f'{LOCK}{about}{version}{importable}{compiled}{ROOT} bytecode'
    return {key: hash_of(text) for key, text in dict(packages=str(PACKAGES), mmcv=mmcv, done=everything).items()}


def stamp(step: str) -> str | None:
    return (STATE / step).read_text() if (STATE / step).is_file() else None


def finish(step: str, key: str) -> None:
    (STATE / f'{step}.new').write_text(key)
    (STATE / f'{step}.new').replace(STATE / step)


def is_usable() -> bool:
    """Whether there is an environment to go on with; SetupError if it is not ours, or of another Python."""
    if os.path.lexists(VENV) and not STATE.is_dir():
        choose = 'move it away, or choose another place with VENV=...'
        raise SetupError(f'{VENV} exists and was not made by this set-up: {choose}')
    if stamp('venv') is None or answer(PYTHON, '-c', 'import pip') is None:
        return False
    if stamp('venv') != MINOR:
        raise SetupError(f"{VENV} was made with Python {stamp('venv')}, not {MINOR}: run 'make clean' first")
    return True


def find_uv() -> str | None:
    """The environment's own uv, or one on PATH that is recent enough."""
    uv = shutil.which('uv', path=f'{VENV}/bin:{os.environ.get("PATH", "")}')
    version = re.search(r'(\d+)\.(\d+)', (uv and answer(uv, '--version')) or '')
    return uv if version and tuple(map(int, version.groups())) >= OLDEST_UV else None


def check_machine(usable: bool, to_compile: bool) -> None:
    """Raise SetupError if something is missing that no package brings."""
    missing = {}
    if not usable and not find_uv() and not (find_spec('ensurepip') and find_spec('venv')):
        missing[f'uv, or the venv module of Python {MINOR}'] = f'python{MINOR}-venv'
    compiler = os.environ.get('CXX', 'c++'), '-std=c++17', '-x', 'c++', '-fsyntax-only', '-'
    if to_compile and answer(*compiler, input='#include <vector>\nint main() {}\n') is None:
        missing['a C++17 compiler'] = 'g++'
    if to_compile and not Path(sysconfig.get_path('include'), 'Python.h').exists():
        missing[f'Python.h of Python {MINOR}'] = f'python{MINOR}-dev'
    if missing:
        packages = ' '.join(missing.values())
        raise SetupError(f'missing: {", ".join(missing)}; on Debian or Ubuntu: apt-get install {packages}')


def check_space(need: int) -> None:
    """Raise SetupError if the disk has less than `need` GB to spare."""
    folder = next(path for path in (VENV, *VENV.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free // 2**30
    if free < need:
        raise SetupError(f'needs {need} GB of free disk space at {VENV}, but {free} GB are free')


def variables() -> dict[str, str]:
    """The environment's variables, without those that send pip or uv elsewhere, and with pip's index for uv."""
    kept = {key: value for key, value in os.environ.items() if key not in ELSEWHERE}
    for theirs, ours in {'PIP_INDEX_URL': 'UV_DEFAULT_INDEX', 'PIP_CERT': 'SSL_CERT_FILE'}.items():
        if theirs in kept:
            kept.setdefault(ours, kept[theirs])
    kept.update(PATH=f'{VENV}/bin:{kept.get("PATH", os.defpath)}', TMPDIR=f'{STATE}/tmp', UV_PYTHON_DOWNLOADS='never')
    return {**kept, 'PIP_DISABLE_PIP_VERSION_CHECK': '1', 'PIP_NO_INPUT': '1', 'PIP_PROGRESS_BAR': 'off'}


def uv_progress(log: str, _seconds: float) -> str:
    begun, ended = (set(re.findall(rf'{word} ([\w.-]+)', log)) for word in ('Downloading', 'Downloaded'))
    left = sorted(begun - ended, key=lambda name: name != 'torch')
    return f'{len(left)} large packages to come, {left[0]} among them' if left else 'at work'


def make(keys: dict[str, str], usable: bool) -> None:
    """Run the steps whose stamps do not say that they are done."""
    runner, uv = Runner(VENV, variables()), find_uv()
    if not usable:
        say(f'1/4 virtual environment in {NAME}, from {BASE} (Python {MINOR}): some seconds')
        runner.run('venv', *([uv, 'venv', '--allow-existing', '--python', BASE] if uv else [BASE, '-m', 'venv']), VENV)
        finish('venv', MINOR)
    if uv is None:
        runner.run('uv', PYTHON, '-m', 'pip', 'install', f'uv=={PINS["uv"]}')
    install = [uv or VENV / 'bin/uv', 'pip', 'install', '--python', PYTHON]
    if stamp('packages') != keys['packages']:
        took = 'typically 1 to 5 minutes, most of it download'
        say(f'2/4 torch {PINS["torch"]} with CUDA, mmdet, e2cnn and the others, 2.8 GB: {took}')
        # of OpenMMLab's there are only sources, whose builds import setuptools and torch; so they come second
        sources = [pin for pin in PACKAGES if pin.startswith(('onedl-', 'mm'))]
        for name, pins in dict(packages=[p for p in PACKAGES if p not in sources], sources=sources).items():
            (STATE / f'tmp/{name}.txt').write_text('\n'.join(pins))
            wanted = ['--no-deps', '--no-build-isolation', '-r', STATE / f'tmp/{name}.txt']
            runner.run(name, *install, *wanted, progress=uv_progress)
        finish('packages', keys['packages'])
    if stamp('mmcv') != keys['mmcv']:
        install_mmcv(runner, install, MMCV, PINS[MMCV], PINS['torch'])
        finish('mmcv', keys['mmcv'])
    say('4/4 install this package in place, compile all to bytecode, try it out: typically 2 minutes, later 20 seconds')
    # setuptools before 77 cannot read our pyproject.toml; uv then builds with another one
    how = ['--no-build-isolation'] if int(PINS['setuptools'].split('.')[0]) >= 77 else []
    runner.run('package', *install, '--no-deps', *how, '--reinstall-package', 'mmrotate_plugin', '-e', ROOT)
    # uv leaves that to the first import; where Python may not write files, each process would compile its modules anew,
    # a third of its start. What does not compile, such as templates, stays as it is
    left_out = '/site-packages/.*/tests?/'
    runner.works('bytecode', PYTHON, '-I', '-m', 'compileall', '-q', '-j', 0, '-x', left_out, VENV / 'lib', *OWN)
    hosts = 'mmdet, mmrotate' if 'onedl-mmrotate' in PINS else 'mmdet'
    code = f'import cv2, e2cnn, hypothesis, matplotlib.pyplot, mmengine, {hosts}, pytest, scipy, torchvision\n'
    runner.run('check', PYTHON, '-I', '-c', code + (HERE / 'try_operators.py').read_text())


def set_up() -> None:
    keys = all_keys()
    if PYTHON.exists() and stamp('done') == keys['done'] and (not os.environ.get('PYTHON') or stamp('venv') == MINOR):
        say(f'{NAME} is up to date')
        return
    if re.search(r'\s', str(VENV)):
        raise SetupError(f"the path '{VENV}' has a space, which compilers cannot handle: move the checkout")
    # one at a time; the script itself is the lock, so that none is left behind
    with (ROOT / 'tools/setup.sh').open() as one_at_a_time:
        try:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say('another set-up is running here; waiting for it')
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        usable = is_usable()
        done = {step: usable and stamp(step) == key for step, key in keys.items()}
        check_machine(usable, to_compile=not done['mmcv'])
        # measured: 5.8 GB of packages, which are the files of uv's cache where that is on the same disk; 0.3 to compile
        check_space(1 if done['packages'] and done['mmcv'] else 2 if done['packages'] else 7)
        if not usable and os.path.lexists(VENV):
            say(f'{NAME} is incomplete; starting it again')
            shutil.rmtree(VENV)
        shutil.rmtree(STATE / 'tmp', ignore_errors=True)
        try:
            (STATE / 'done').unlink(missing_ok=True)
            (STATE / 'tmp').mkdir(parents=True)
        except OSError:
            raise SetupError(f'cannot write to {VENV.parent}') from None
        make(keys, usable)
        shutil.rmtree(STATE / 'tmp')
        finish('done', keys['done'])
    say(f'done: {NAME} is ready')


if __name__ == '__main__':
    sys.exit(main(set_up))
