#!/usr/bin/env bash
# Makes the development environment: .venv with the packages of requirements.lock, mmcv's operators compiled and tried
# out, and this package installed in place. Run it through `make setup`.
#
# Each step leaves a stamp in .venv/.setup, named after the step and holding a hash of what the step depends on: a run
# that was interrupted, or a changed lock file, repeats only what is missing. The compile continues file by file.
#
# Variables, all optional:
#   PYTHON                 interpreter to make .venv with (default: the first suitable of python3 and those of the lock file)
#   VENV                   where to make it (default: .venv)
#   LOCK                   the packages, in the layout of requirements.lock, which is the default
#   MAX_JOBS               files to compile at once (default: by cores and free memory)
#   MMROTATE_PLUGIN_CACHE  where compiled mmcv wheels are kept for the next clone (default: ~/.cache/mmrotate_plugin;
#                          empty: nowhere)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
lock=$root/${LOCK:-requirements.lock}
venv=${VENV:-.venv}
[[ $venv == /* ]] || venv=$root/$venv
state=$venv/.setup
py=$venv/bin/python
child=
cd "$root"

say() { printf '%s\n' "set-up: $*"; }
die() {
    printf '%s\n' "set-up: $*" >&2
    exit 1
}
hash_of() { sha256sum | cut -c1-16; }
# The packages of one part of the lock file, without comments.
part() { awk -v part="$1" '/^# ---/ {on = ($3 == part); next} on {sub(/ *#.*/, ""); if ($0 != "") print}' "$lock"; }
pin() { part "$1" | sed -n "s/^$2==//p"; }
package_key() { { cat "$root/setup.py" "$root/mmrotate_plugin/version.py" && printf '%s' "$root"; } | hash_of; }
all_key() { { cat "$lock" && package_key; } | hash_of; }

leave_if_done() {
    if [[ -x $py && -f $state/done && $(<"$state/done") == "$(all_key)" ]]; then
        say "${venv#"$root"/} is up to date"
        exit 0
    fi
}

# ---- nothing to do: the usual case, which must cost next to nothing
[[ -n ${PYTHON:-} ]] || leave_if_done

# ---- what can be known before anything takes long
[[ $(uname -s) == Linux ]] || die "needs Linux; elsewhere install the packages of requirements.lock with pip, see docs/install.md"
[[ $root$venv != *[[:space:]]* ]] || die "the path '$root' has a space, which compilers of extensions cannot handle: move the checkout"

describe='
import os, sys
try:
    import sysconfig
    header = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
except ImportError:
    header = False
try:
    import ensurepip, venv
    venv = True
except ImportError:
    venv = False
print("%d.%d %d %d" % (sys.version_info[0], sys.version_info[1], header, venv))
'
# The versions of Python that the lock file is for, newest first.
read -r -a pythons <<<"$(sed -n 's/^# Python: *//p' "$lock")"
supported() { [[ " ${pythons[*]} " == *" $1 "* ]]; }
pythons_in_words() { printf '%s\n' "${pythons[@]}" | tac | paste -sd, | sed 's/,/, /g; s/\(.*\), /\1 or /'; }

# Sets base (interpreter), minor (3.11), header and venv_module (0 or 1).
choose_python() {
    local candidate found seen='' candidates=(python3 "${pythons[@]/#/python}")
    base=
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        found=$("$candidate" -c "$describe" 2>/dev/null) || continue
        read -r version has_header has_venv <<<"$found"
        seen+="${seen:+, }$candidate is $version"
        supported "$version" || continue
        # the first that has all it takes, else the first of a supported version, whose gaps are then reported
        if [[ -z $base || ($header$venv_module != 11 && $has_header$has_venv == 11) ]]; then
            base=$candidate minor=$version header=$has_header venv_module=$has_venv
        fi
    done
    [[ -n $base ]] || die "needs Python $(pythons_in_words) (found: ${seen:-none in ${candidates[*]}}); name one: PYTHON=/path/to/python3.11"
}

has_virtualenv() { command -v virtualenv >/dev/null || "$base" -m virtualenv --version >/dev/null 2>&1; }

# Sets minor; decides whether .venv can stay.
fresh=1
if [[ -e $venv || -L $venv ]]; then
    [[ -d $state ]] || die "$venv exists and was not made by this set-up: move it away, or choose another place with VENV=..."
    if [[ -f $state/venv ]] && "$py" -c 'import pip' 2>/dev/null; then
        fresh=0
        minor=$(<"$state/venv")
        if [[ -n ${PYTHON:-} ]]; then
            choose_python
            [[ $minor == "$(<"$state/venv")" ]] || die "$venv was made with Python $(<"$state/venv"), not $minor: run 'make clean' first"
            leave_if_done
        fi
    fi
fi

mmcv=$(part mmcv | sed 's/==.*//')  # onedl-mmcv, or mmcv itself
key_tools=$(part tools | hash_of)
key_torch=$(part torch | hash_of)
key_libraries=$(part libraries | hash_of)
key_mmcv=$({ part mmcv; pin torch torch; } | hash_of)
is_done() { [[ $fresh == 0 && -f $state/$1 && $(<"$state/$1") == "$2" ]]; }

missing=() packages=()
if [[ $fresh == 1 ]]; then
    choose_python
    if [[ $venv_module == 0 ]] && ! has_virtualenv; then
        missing+=("the venv module of Python $minor") packages+=("python$minor-venv")
    fi
else
    read -r _ header _ <<<"$("$py" -c "$describe")"
fi
if ! is_done mmcv "$key_mmcv"; then
    if ! "${CXX:-c++}" -std=c++17 -x c++ -fsyntax-only - 2>/dev/null <<<$'#include <vector>\nint main() {}'; then
        missing+=('a C++17 compiler') packages+=(g++)
    fi
    [[ $header == 1 ]] || { missing+=("Python.h of Python $minor") && packages+=("python$minor-dev"); }
fi
if [[ ${#missing[@]} -gt 0 ]]; then
    list=$(printf ', %s' "${missing[@]}")
    die "missing: ${list:2}; on Debian or Ubuntu: apt-get install ${packages[*]}"
fi

# Free space in GB of the file system that has (or will have) a path.
free_gb() {
    local path=$1
    while [[ ! -d $path ]]; do path=$(dirname "$path"); done
    df -Pk "$path" | awk 'NR == 2 {print int($4 / 1048576)}'
}
# Measured: 5.6 GB in .venv, 2.8 GB of wheels that pip unpacks them from, 0.3 GB for the compile.
if ! is_done torch "$key_torch"; then need=9; elif ! is_done mmcv "$key_mmcv"; then need=2; else need=1; fi
free=$(free_gb "$venv")
[[ $free -ge $need ]] || die "needs $need GB of free disk space at $venv, but $free GB are free"
# pip keeps what it downloads: 2.8 GB on top, perhaps on another disk
pip_cache=${PIP_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-$root}/.cache}/pip}
[[ $(free_gb "$pip_cache") -ge $((need + 4)) ]] || export PIP_NO_CACHE_DIR=1

# ---- one at a time; the script itself is the lock, so that none is left behind
exec 9<"${BASH_SOURCE[0]}"
if command -v flock >/dev/null && ! flock -n 9; then
    say 'another set-up is running here; waiting for it'
    flock 9
    exec bash "${BASH_SOURCE[0]}" 9<&-
fi

stop() {
    trap '' INT TERM HUP
    [[ -z $child ]] || kill -TERM -- "-$child" 2>/dev/null || true
    wait || true
    say 'interrupted; the next run continues here' >&2
    exit 130
}
trap stop INT TERM HUP

if [[ $fresh == 1 ]]; then
    [[ ! -e $venv ]] || say "${venv#"$root"/} is incomplete; starting it again"
    rm -rf -- "$venv"
    mkdir -p "$state" 2>/dev/null || die "cannot write to $(dirname "$venv")"
fi
rm -f "$state/done"
rm -rf "$state/tmp"
mkdir -p "$state/tmp"
# settings that would send pip, or what it starts, elsewhere than into .venv
unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_USER PIP_REQUIRE_VIRTUALENV
export TMPDIR=$state/tmp PATH=$venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off

minutes() { if [[ $1 -lt 60 ]]; then echo "$1 s"; else echo "$(($1 / 60)) min $(($1 % 60)) s"; fi; }

# One line on why a command failed, from its log.
reason() {
    local found
    if grep -q 'No space left on device' "$1"; then echo 'the disk is full'
    elif grep -qE 'Killed signal|[Cc]annot allocate memory|MemoryError' "$1"; then echo 'out of memory (try MAX_JOBS=1)'
    elif grep -qE 'Temporary failure in name|NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|connection broken|Network is unreachable' "$1"; then
        echo 'the package index cannot be reached (network, proxy or pip configuration)'
    elif found=$(grep -m1 -oE 'No matching distribution found for [^ ]+' "$1"); then echo "$found"
    elif found=$(grep -E 'Error|ERROR|error:' "$1" | tail -n 1 | cut -c1-200) && [[ -n $found ]]; then echo "$found"
    else tail -n 1 "$1" | cut -c1-200; fi
}

# logged NAME PROGRESS COMMAND...: run a command with its output in a file, saying at times how far it is.
logged() {
    local name=$1 progress=$2 log=$venv/setup-$1.log start=$SECONDS next status=0 note pause=0.05
    shift 2
    next=$((start + 20))
    # its own process group, so that an interruption reaches the compilers too
    setsid "$@" >"$log" 2>&1 </dev/null &
    child=$!
    while kill -0 "$child" 2>/dev/null; do
        sleep "$pause"
        [[ $SECONDS -le $((start + 1)) ]] || pause=0.5
        if [[ $SECONDS -ge $next ]]; then
            note=$("$progress" "$log" $((SECONDS - start)) 2>/dev/null) || note='at work'
            say "  $name: $note ($(minutes $((SECONDS - start))))"
            next=$((SECONDS + 20))
        fi
    done
    wait "$child" || status=$?
    child=
    return "$status"
}
logged_or_die() { logged "$@" || die "$1 failed: $(reason "$venv/setup-$1.log"); log: $venv/setup-$1.log"; }

pip_progress() {
    if grep -q '^Installing collected' "$1"; then echo 'unpacking'
    else echo "$(grep -cE '^(Collecting|Processing|Requirement already)' "$1") packages fetched or looked up"; fi
}
install_part() {
    part "$1" >"$state/tmp/$1.txt"
    logged_or_die "$1" pip_progress "$py" -m pip install --no-deps --no-build-isolation -r "$state/tmp/$1.txt"
}
finish() { printf '%s' "$2" >"$state/$1.new" && mv "$state/$1.new" "$state/$1"; }

# ---- steps
if [[ $fresh == 1 ]]; then
    say "1/6 virtual environment in ${venv#"$root"/}, from $base (Python $minor): some seconds"
    if [[ $venv_module == 1 ]]; then logged_or_die venv pip_progress "$base" -m venv "$venv"
    elif "$base" -m virtualenv --version >/dev/null 2>&1; then logged_or_die venv pip_progress "$base" -m virtualenv "$venv"
    else logged_or_die venv pip_progress virtualenv -p "$base" "$venv"; fi
    finish venv "$minor"
fi

if ! is_done tools "$key_tools"; then
    say '2/6 pip and build tools: some seconds'
    install_part tools
    finish tools "$key_tools"
fi

if ! is_done torch "$key_torch"; then
    say "3/6 torch $(pin torch torch) with its CUDA libraries, 2.8 GB: typically 2 to 6 minutes, most of it download"
    install_part torch
    finish torch "$key_torch"
fi

if ! is_done libraries "$key_libraries"; then
    say '4/6 mmengine, mmdet, e2cnn and the other libraries: typically 1 to 2 minutes'
    install_part libraries
    finish libraries "$key_libraries"
fi

# Compiled operators give right answers, not only import.
try_mmcv="
import torch
from mmcv.ops import box_iou_rotated, nms_rotated
boxes = torch.tensor([[10.0, 10.0, 8.0, 4.0, 0.0], [10.0, 10.0, 8.0, 4.0, 0.1], [40.0, 40.0, 8.0, 4.0, 0.0]])
iou = box_iou_rotated(boxes, boxes)
assert (iou.diagonal() - 1).abs().max() < 1e-3 and iou[0, 2] == 0, f'box_iou_rotated gave {iou.tolist()}'
keep = nms_rotated(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)[1].tolist()
assert keep == [0, 2], f'nms_rotated kept {keep}'
"
# Prints cpu, or cuda with its version, or why a GPU cannot be compiled for.
cuda_choice="
import os, re, subprocess, torch
from torch.utils.cpp_extension import CUDA_HOME
if not torch.cuda.is_available() and os.getenv('FORCE_CUDA', '0') != '1':
    print('cpu')
elif CUDA_HOME is None:
    print(f'no compiler nvcc of CUDA {torch.version.cuda}')
else:
    text = subprocess.run([os.path.join(CUDA_HOME, 'bin', 'nvcc'), '--version'], capture_output=True, text=True).stdout
    release = re.search(r'release (\d+)\.(\d+)', text)
    if release and release[1] == str(torch.version.cuda).split('.')[0]:
        print('cuda', release[0], os.getenv('TORCH_CUDA_ARCH_LIST') or torch.cuda.get_device_capability())
    else:
        print(f'nvcc is of another CUDA than {torch.version.cuda}')
"

parallel_jobs() {
    local cores memory limit
    cores=$(nproc)
    memory=$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)
    if limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null) && [[ $limit != max ]]; then
        limit=$((limit / 1048576))
        [[ $limit -ge $memory ]] || memory=$limit
    fi
    # one compiler takes up to 1.5 GB
    limit=$((memory / 1536))
    [[ $limit -ge 1 ]] || limit=1
    echo $((limit < cores ? limit : cores))
}

mmcv_progress() {
    local ninja total left at
    ninja=$(find "$build" -name build.ninja | head -n 1)
    at=$(grep -oE '^ *\[[0-9]+/[0-9]+\]' "$1" | tail -n 1 | tr -d ' []')
    [[ -n $ninja && -n $at ]] || { echo 'preparing' && return; }
    total=$(grep -cE '^build .*: ' "$ninja")
    left=$((${at#*/} - ${at%/*}))
    echo "$((total - left)) of $total files compiled, about $(($2 * left / ${at%/*} / 60 + 1)) min left"
}

compile_mmcv() {
    local version
    version=$(pin mmcv "$mmcv")
    if [[ ! -f $build/unpacked ]]; then
        rm -rf "$build"
        mkdir -p "$build"
        logged_or_die mmcv-download pip_progress "$py" -m pip download --no-deps --no-build-isolation \
            --no-binary "$mmcv" -d "$build" "$mmcv==$version"
        "$py" -m tarfile -e "$build/${mmcv//-/_}-$version.tar.gz" "$build" >/dev/null
        touch "$build/unpacked"
    fi
    # Recent setuptools puts CFLAGS in the place of Python's own flags: without -O2 here the operators would be
    # compiled unoptimised. -g0: debug information only costs time and space.
    logged_or_die mmcv mmcv_progress env "CFLAGS=-O2 -g0 -DNDEBUG" MMCV_WITH_OPS=1 "MAX_JOBS=$max_jobs" \
        "$py" -m pip wheel -v --no-deps --no-build-isolation --no-cache-dir -w "$build/wheel" "$build/${mmcv//-/_}-$version"
}
use_mmcv() {
    logged mmcv-install pip_progress "$py" -m pip install --no-deps --no-cache-dir --force-reinstall "$1" &&
        logged mmcv-check pip_progress "$py" -c "$try_mmcv"
}

if ! is_done mmcv "$key_mmcv"; then
    choice=$("$py" -c "$cuda_choice" 2>"$venv/setup-torch-check.log") ||
        die "torch cannot be imported: $(reason "$venv/setup-torch-check.log"); log: $venv/setup-torch-check.log"
    if [[ $choice != cpu && $choice != cuda* ]]; then
        say "a GPU is here, but $choice: mmcv's operators are compiled for the CPU only"
        choice=cpu
    fi
    # mmcv's own build looks for a GPU and stops where it finds one that it cannot compile for
    [[ $choice == cuda* ]] || { export CUDA_VISIBLE_DEVICES= && unset FORCE_CUDA; }
    max_jobs=${MAX_JOBS:-$(parallel_jobs)}
    # pip's own cache of wheels knows neither torch's version nor CUDA's; this name has all that the result depends on
    wheel_key=$({
        part mmcv
        pin torch torch
        "$py" -c 'import sysconfig; print(sysconfig.get_config_var("SOABI"), sysconfig.get_platform())'
        "${CXX:-c++}" -dumpfullversion
        getconf GNU_LIBC_VERSION || true
        echo "$choice"
    } 2>/dev/null | hash_of)
    build=$state/mmcv-$wheel_key
    cache=${MMROTATE_PLUGIN_CACHE-${XDG_CACHE_HOME:-${HOME:-$venv}/.cache}/mmrotate_plugin}
    kept=$(compgen -G "$cache/$wheel_key/${mmcv//-/_}-*.whl" || true)
    if [[ -n $cache && -n $kept ]]; then
        say "5/6 mmcv with the operators compiled before (kept in $cache): some seconds"
        if ! use_mmcv "$kept"; then
            say 'the kept copy does not work here'
            kept=
        fi
    else
        kept=
    fi
    if [[ -z $kept ]]; then
        if [[ $choice == cpu ]]; then took='78 files, typically 8 minutes on 2 cores, 4 on 4'; else took='for CPU and GPU, typically 15 to 40 minutes'; fi
        say "5/6 compile mmcv's operators, $max_jobs at a time: $took"
        compile_mmcv
        made=$(compgen -G "$build/wheel/${mmcv//-/_}-*.whl") || die "mmcv failed: pip made no wheel; log: $venv/setup-mmcv.log"
        if ! use_mmcv "$made"; then
            rm -rf "$build"
            die "mmcv's compiled operators do not work: $(reason "$venv/setup-mmcv-check.log"); log: $venv/setup-mmcv.log, $venv/setup-mmcv-check.log"
        fi
        # keeping it is a convenience: a read-only or full home must not stop the set-up
        if [[ -n $cache ]]; then
            { mkdir -p "$cache/$wheel_key" && cp "$made" "$cache/$wheel_key/.new.$$" &&
                mv "$cache/$wheel_key/.new.$$" "$cache/$wheel_key/$(basename "$made")"; } 2>/dev/null || true
        fi
        rm -rf "$build"
    fi
    finish mmcv "$key_mmcv"
fi

say '6/6 install this package in place and try everything out: typically 20 seconds'
if ! is_done package "$(package_key)"; then
    logged_or_die package pip_progress "$py" -m pip install --no-deps --no-build-isolation -e "$root"
    finish package "$(package_key)"
fi
hosts=mmdet
[[ -z $(pin libraries onedl-mmrotate) ]] || hosts+=', mmrotate'
logged_or_die check pip_progress "$py" -c "import cv2, e2cnn, hypothesis, mmengine, $hosts, pytest, scipy, torchvision
$try_mmcv"

rm -rf "$state/tmp"
finish done "$(all_key)"
say "done: ${venv#"$root"/} is ready"
