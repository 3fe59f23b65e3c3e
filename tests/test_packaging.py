"""The lock files, the metadata, and what an import says where something is missing."""

import email
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mmrotate_plugin._dependencies import check_dependencies
from mmrotate_plugin.version import __version__

ROOT = Path(__file__).parents[1]
LOCK, LEGACY = 'requirements.lock', 'requirements-legacy.lock'
# what each lock file leaves out of the dependencies: opencv-python needs libGL, triton needs a GPU
LEFT_OUT = {LOCK: {'opencv-python'}, LEGACY: {'opencv-python', 'triton'}}


# what a package declares and does not need: OpenCV 4.12 runs with numpy 2.3 and later (tests/datasets, tests/tools)
NEEDLESS = {'opencv-python-headless': {'numpy'}}


# ---- the lock files


def locked(name: str = LOCK) -> dict[str, str]:
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


def test_lock_has_all_that_is_wanted():
    lines = [line.split('#')[0].strip() for line in (ROOT / 'requirements.in').read_text().splitlines()]
    wanted = [Requirement(line) for line in lines if line]
    pins = locked()
    wrong = [str(need) for need in wanted if not need.specifier.contains(pins[canonicalize_name(need.name)])]
    assert wrong == [] and len(wanted) > 20
    extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['optional-dependencies']
    extras = {
        Requirement(text).name for name in ('export', 'tiff', 'geo', 'dev', 'docs', 'test') for text in extras[name]
    }
    assert extras - {'mmrotate_plugin', 'pre-commit'} <= {need.name for need in wanted}


def test_all_places_name_the_same_pythons():
    pythons = re.search(r'^# Python: (.*)', (ROOT / LOCK).read_text(), re.MULTILINE)[1].split()[::-1]
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())
    found = [text.split(' :: ')[-1] for text in project['project']['classifiers'] if ':: Python :: 3.' in text]
    assert found == pythons and project['project']['requires-python'] == f'>={pythons[0]}'
    assert project['tool']['ruff']['target-version'] == f'py{pythons[0].replace(".", "")}'
    workflow = yaml.safe_load((ROOT / '.github/workflows/ci.yml').read_text())
    assert workflow['jobs']['test']['strategy']['matrix']['python'] == pythons
    in_words = f'Python {", ".join(pythons[:-1])} or {pythons[-1]}'
    for page in ('README.md', 'docs/install.md'):
        assert in_words in ' '.join((ROOT / page).read_text().split()), page


def test_pre_commit_runs_the_programs_of_the_lock_file():
    repos = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos']
    assert [repo['repo'] for repo in repos] == ['local']  # another one would have versions of its own
    hooks = {hook['id']: hook for hook in repos[0]['hooks']}
    assert set(hooks) == {'ruff-check', 'ruff-format', 'mypy', 'import-linter'} and set(locked()) > {'ruff', 'mypy'}
    assert all(hook['language'] == 'system' and hook['entry'].startswith('.venv/bin/') for hook in hooks.values())


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == __version__ and citation['license'] == 'Apache-2.0'
    titles = [reference['title'] for reference in citation['references']]
    assert any('ReDet' in t for t in titles) and any('Steerable' in t for t in titles)


def test_legacy_lock_pins_the_original_stack():
    pins = locked(LEGACY)
    original = dict(torch='2.0.1', torchvision='0.15.2', mmcv='2.0.1', mmengine='0.10.7', mmdet='3.0.0')
    assert original.items() <= pins.items() and pins['numpy'].startswith('1.26.')
    assert int(pins['setuptools'].split('.')[0]) < 70
    assert not [name for name in pins if name.startswith('onedl')] and 'mmrotate' not in pins
    shared = set(pins) & set(locked()) & {'e2cnn', 'pytest', 'hypothesis', 'scipy', 'tensorboard'}
    assert len(shared) == 5 and {name: pins[name] for name in shared} == {name: locked()[name] for name in shared}


def on_the_original_stack() -> bool:
    return metadata.version('torch') == locked(LEGACY)['torch']


def test_lock_has_every_dependency_at_a_version_that_fits():
    here = LEGACY if on_the_original_stack() else LOCK
    pins, wrong, seen = locked(here), [], 0
    for name in pins:
        try:
            requirements = metadata.distribution(name).requires or []
        except metadata.PackageNotFoundError:
            continue
        seen += 1
        for text in requirements:
            need = Requirement(text)
            if need.marker and not need.marker.evaluate({'extra': ''}) or need.name in NEEDLESS.get(name, ()):
                continue
            pin = pins.get(canonicalize_name(need.name))
            if need.name not in LEFT_OUT[here] and (pin is None or not need.specifier.contains(pin, prereleases=True)):
                wrong.append(f'{name} needs {text}, locked is {pin}')
    assert wrong == []
    assert seen > 40


# ---- the distribution


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy: pip builds in place and would leave its traces in the checkout."""
    if on_the_original_stack():
        pytest.skip('its setuptools is too old for pyproject.toml; the set-up builds with another one there')
    path = tmp_path_factory.mktemp('wheel')
    for name in [p.name for p in ROOT.glob('mmrotate_plugin*') if p.suffix != '.egg-info'] + ['configs']:
        ignore = shutil.ignore_patterns('__pycache__')
        shutil.copytree(ROOT / name, path / 'source' / name, symlinks=True, ignore=ignore)
    for name in ('pyproject.toml', 'README.md', 'LICENSE', 'model-index.yml'):
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
    files = [file for folder in ROOT.glob('mmrotate_plugin*') for file in folder.rglob('*.py')]
    modules = {str(file.relative_to(ROOT)) for file in files if '.mim' not in file.parts}
    configs = {f'mmrotate_plugin/.mim/{file.relative_to(ROOT)}' for file in (ROOT / 'configs').rglob('*.py')}
    configs |= {f'mmrotate_plugin/.mim/{file.relative_to(ROOT)}' for file in (ROOT / 'configs').rglob('*.yml')}
    assert modules - have == set() and configs - have == set() and configs
    assert {'mmrotate_plugin/py.typed', 'mmrotate_plugin/.mim/model-index.yml'} <= have
    assert {p.relative_to(ROOT).as_posix() for p in (ROOT / 'mmrotate_plugin').rglob('templates/*')} <= have
    assert any(name.endswith('/LICENSE') for name in have)
    compiled = [name for name in have if name.startswith('mmrotate_plugin/kernels/_loops.')]
    assert len(compiled) == (shutil.which('cc') is not None)  # a wheel without them works too
    assert not any(name.startswith(('tests', 'tools')) for name in have)


def test_distribution_requires_nothing_that_an_openmmlab_environment_has_its_own_of(wheel):
    info = email.message_from_bytes(wheel.read(next(n for n in wheel.namelist() if n.endswith('/METADATA'))))
    needs = [Requirement(text) for text in info.get_all('Requires-Dist')]
    hard = {need.name for need in needs if need.marker is None}
    extras = {
        extra: {need.name for need in needs if need.marker and need.marker.evaluate({'extra': extra})}
        for extra in info.get_all('Provides-Extra')
    }
    assert hard == {'e2cnn', 'jinja2', 'shtab'}
    assert extras['onedl'] == {'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmrotate'}
    assert extras['openmmlab'] == {'mmengine', 'mmcv', 'mmdet', 'mmrotate'}
    assert info['Requires-Python'] == '>=3.11' and info['Version'] == __version__ == '0.2.0'
    assert info['License-Expression'] == 'Apache-2.0' and info['License-File'] == 'LICENSE'


def test_the_wheel_brings_the_command(wheel):
    points = wheel.read(next(n for n in wheel.namelist() if n.endswith('/entry_points.txt'))).decode()
    assert 'mmrotate-plugin = mmrotate_plugin_cli.main:main' in points.splitlines()


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
