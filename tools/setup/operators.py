"""Install mmcv with its operators compiled: those kept from an earlier set-up where they fit, else compiled here."""

import os
import re
import shutil
from hashlib import sha256
from pathlib import Path

from running import Runner, SetupError, answer, reason, say

HERE = Path(__file__).parent
COMPILER_MIB = 1536  # memory of one compiler
ABI = 'import sysconfig; print(sysconfig.get_config_var("SOABI"), sysconfig.get_platform())'


def install_mmcv(runner: Runner, pip_install: list, name: str, version: str, torch: str) -> None:
    """Install mmcv, or its fork `name`, for this torch, and try it out.

    Raises:
        SetupError: If it does not compile, or gives wrong answers.
    """
    env, venv = runner.env, runner.folder
    device = _device(runner)
    if device == 'cpu':
        # mmcv's own build looks for a GPU and stops where it finds one that it cannot compile for
        env['CUDA_VISIBLE_DEVICES'] = ''
        env.pop('FORCE_CUDA', None)
    # all that the result depends on; pip's and uv's caches of wheels know neither torch nor the compiler
    compiler = [env.get('CXX', 'c++'), '-dumpfullversion']
    asked = [[venv / 'bin/python', '-c', ABI], compiler, ['getconf', 'GNU_LIBC_VERSION']]
    about = ''.join(answer(*command) or '' for command in asked)
    key = sha256(f'{name}=={version}\n{torch}\n{about}{device}\n'.encode()).hexdigest()[:16]
    build = venv / '.setup' / f'mmcv-{key}'
    home = env.get('XDG_CACHE_HOME') or f'{env.get("HOME", venv)}/.cache'
    cache = env.get('MMROTATE_PLUGIN_CACHE', f'{home}/mmrotate_plugin')
    pattern = f'{name.replace("-", "_")}-*.whl'

    def works(wheel: Path) -> bool:
        installed = runner.works('mmcv-install', *pip_install, '--no-deps', '--reinstall', wheel)
        return installed and runner.works('mmcv-check', venv / 'bin/python', '-I', HERE / 'try_operators.py')

    for wheel in Path(cache, key).glob(pattern) if cache else ():
        say(f'3/4 mmcv with the operators compiled before (kept in {cache}): some seconds')
        if works(wheel):
            return
        say('the kept copy does not work here')
    _compile(runner, build, name, version, device)
    made = next((build / 'wheel').glob(pattern), None)
    if made is None:
        raise SetupError(f'mmcv failed: pip made no wheel; log: {runner.log("mmcv")}')
    worked = works(made)
    try:
        if cache and worked:
            Path(cache, key).mkdir(parents=True, exist_ok=True)
            shutil.copy(made, Path(cache, key, f'.new.{os.getpid()}')).replace(Path(cache, key, made.name))
    except OSError:
        pass  # a convenience: a read-only or full home must not stop the set-up
    shutil.rmtree(build)
    if not worked:
        why, logs = reason(runner.log('mmcv-check')), f'{runner.log("mmcv")}, {runner.log("mmcv-check")}'
        raise SetupError(f"mmcv's compiled operators do not work: {why}; log: {logs}")


def _device(runner: Runner) -> str:
    """What to compile for: 'cpu', or 'cuda' with its version and that of the GPU."""
    log = runner.log('torch-check')
    if not runner.works('torch-check', runner.folder / 'bin/python', '-I', HERE / 'choose_device.py'):
        raise SetupError(f'torch cannot be imported: {reason(log)}; log: {log}')
    choice = log.read_text().splitlines()[-1]
    if choice != 'cpu' and not choice.startswith('cuda'):
        say(f"a GPU is here, but {choice}: mmcv's operators are compiled for the CPU only")
        return 'cpu'
    return choice


def _compile(runner: Runner, build: Path, name: str, version: str, device: str) -> None:
    """Make the wheel in `build`/wheel. An interruption loses one file, where uv's own build would begin anew."""
    jobs = runner.env.setdefault('MAX_JOBS', str(_jobs())) or str(_jobs())
    slow = 'for CPU and GPU, typically 15 to 40 minutes'
    took = '78 files, typically 8 minutes on 2 cores, 4 on 4' if device == 'cpu' else slow
    say(f"3/4 compile mmcv's operators, {jobs} at a time: {took}")
    python, common = runner.folder / 'bin/python', ['--no-deps', '--no-build-isolation']
    source = build / f'{name.replace("-", "_")}-{version}'
    if not (build / 'unpacked').exists():
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir(parents=True)
        fetch = [python, '-m', 'pip', 'download', *common, '--no-binary', name, '-d', build, f'{name}=={version}']
        runner.run('mmcv-download', *fetch)
        runner.run('mmcv-unpack', python, '-m', 'tarfile', '-e', f'{source}.tar.gz', build)
        (build / 'unpacked').touch()
    # Recent setuptools puts CFLAGS in the place of Python's own flags: without -O2 here the operators would be
    # compiled unoptimised. -g0: debug information only costs time and space.
    flags = ['CFLAGS=-O2 -g0 -DNDEBUG', 'MMCV_WITH_OPS=1', f'MAX_JOBS={jobs}']
    wheel = [python, '-m', 'pip', 'wheel', '-v', *common, '--no-cache-dir', '-w', build / 'wheel', source]

    def progress(log: str, seconds: float) -> str:
        at, plan = re.findall(r'^ *\[(\d+)/(\d+)\]', log, re.MULTILINE), next(build.rglob('build.ninja'), None)
        if plan is None or not at:
            return 'preparing'
        done, of = map(int, at[-1])
        total = len(re.findall(r'^build .*: ', plan.read_text(), re.MULTILINE))
        left = seconds * (of - done) / done / 60 + 1
        return f'{total - of + done} of {total} files compiled, about {left:.0f} min left'

    runner.run('mmcv', 'env', *flags, *wheel, progress=progress)


def _jobs() -> int:
    """Compilers at once: by cores and free memory."""
    memory = int(re.findall(r'MemAvailable: *(\d+)', Path('/proc/meminfo').read_text())[0]) // 1024
    limit = Path('/sys/fs/cgroup/memory.max')
    if limit.exists() and limit.read_text().strip().isdigit():
        memory = min(memory, int(limit.read_text()) // 2**20)
    return max(1, min(len(os.sched_getaffinity(0)), memory // COMPILER_MIB))
