#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds gpuvirt on a GPU machine and answers there, in one JSON file, what only a real driver can answer.
#
#   benchmarks/real_gpu.sh [--output FILE] [--limit SECONDS] [--soft] [--only STEP...]
#   benchmarks/real_gpu.sh --collect-wheels DIR      on a machine with a network: gathers what the other one lacks
#
# Variables: WHEELS  folder of wheels for a machine without network (default: .whl in or next to the checkout, if there)
#            PYTHON  the Python whose packages (PyTorch) are to be seen (default python3)
#            VENV    environment to build (default build/real-gpu/venv)
#            TARGET_PYTHON  with --collect-wheels: Python version of the GPU machine (default 3.12)
#            WITH_CUDA      with --collect-wheels: 1 to gather NVRTC, cuda-python and numpy too (100 MB more)
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=${PYTHON:-python3}
VENV=${VENV:-$root/build/real-gpu/venv}
CUDA_CORE="cuda-core==1.2.2 cuda-bindings==13.4.4 cuda-pathfinder"

# Names and versions come from pyproject.toml, so that nothing is said twice. Groups: build, run, cuda, test.
requirements() {
    "$PYTHON" - "$root/pyproject.toml" "$@" <<'PYTHON_END'
import sys, tomllib
document = tomllib.load(open(sys.argv[1], "rb"))
groups = {
    "build": document["build-system"]["requires"],
    "run": document["project"]["dependencies"],
    "cuda": document["project"]["optional-dependencies"]["cuda"],
    "test": [entry for entry in document["project"]["optional-dependencies"]["dev"] if entry.startswith("pytest>")],
}
print("\n".join(entry for group in sys.argv[2:] for entry in groups[group]))
PYTHON_END
}

# Into $VENV, by the pip of $PYTHON.
install_packages() {
    # shellcheck disable=SC2086 # $source is a list of words
    "$PYTHON" -m pip --python "$VENV/bin/python" install --quiet --disable-pip-version-check $source "$@"
}

collect() {
    mkdir -p "$1"
    groups="build run test"
    [ "${WITH_CUDA:-0}" = 1 ] && groups="$groups cuda"
    platforms=""
    for tag in manylinux_2_34 manylinux_2_31 manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014; do
        platforms="$platforms --platform ${tag}_x86_64"
    done
    # shellcheck disable=SC2086,SC2046 # lists of words on purpose
    requirements $groups | xargs "$PYTHON" -m pip download --quiet --only-binary=:all: \
        --python-version "${TARGET_PYTHON:-3.12}" --implementation cp $platforms --dest "$1"
    # cmake and ninja: scikit-build-core asks for them where the machine has none. cuda-core and what it needs: the machine's
    # may be too old for the programs.
    # shellcheck disable=SC2086
    "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --python-version "${TARGET_PYTHON:-3.12}" \
        --implementation cp $platforms --dest "$1" ninja cmake $CUDA_CORE
    du -sh "$1"
}

if [ "${1:-}" = --collect-wheels ]; then
    [ -n "${2:-}" ] || { echo "real_gpu.sh: --collect-wheels needs a folder" >&2; exit 2; }
    collect "$2"
    exit 0
fi

if [ -z "${WHEELS:-}" ]; then
    for folder in "$root/.whl" "$root/../.whl"; do
        [ -d "$folder" ] && WHEELS=$folder && break
    done
fi
if [ -n "${WHEELS:-}" ]; then
    [ -d "$WHEELS" ] || { echo "real_gpu.sh: no folder $WHEELS (WHEELS)" >&2; exit 2; }
    source="--no-index --find-links $WHEELS"
else
    source=""
fi

echo "building gpuvirt into $VENV"
# Without pip, and installed into from outside: a Python may have pip and no ensurepip.
"$PYTHON" -m venv --clear --without-pip "$VENV"
# The packages of $PYTHON (PyTorch) come after those of the new environment. --system-site-packages would give those of the
# Python below $PYTHON when that is an environment itself.
"$PYTHON" - "$VENV" <<'PYTHON_END'
import pathlib, site, sys, sysconfig
venv = pathlib.Path(sys.argv[1])
folder = next(venv.glob("lib/python*/site-packages"))
seen = [entry for entry in dict.fromkeys([*site.getsitepackages(), sysconfig.get_paths()["purelib"], *sys.path])
        if entry.endswith(("site-packages", "dist-packages")) and pathlib.Path(entry).is_dir()]
(folder / "zz_packages_of_the_machine.pth").write_text("\n".join(seen) + "\n")
PYTHON_END
install_packages "$root"
if ! "$VENV/bin/python" -c "from cuda.core import LegacyPinnedMemoryResource; from cuda.bindings import nvrtc" 2>/dev/null; then
    # shellcheck disable=SC2086 # a list of words
    install_packages --no-deps $CUDA_CORE
fi
# cuda.pathfinder looks for NVRTC in the environment's own packages, not in those of the machine.
nvrtc=$("$VENV/bin/python" - <<'PYTHON_END'
import glob, sys
found = [path for entry in sys.path for path in glob.glob(f"{entry}/nvidia/*/lib/libnvrtc.so.1[23]")]
print(max(found, key=lambda path: path.rsplit(".", 1)[1], default="").rpartition("/")[0])
PYTHON_END
)
if [ -n "$nvrtc" ]; then
    export LD_LIBRARY_PATH="$nvrtc${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
if ! "$VENV/bin/python" -c "import numpy; from cuda.bindings import nvrtc; nvrtc.nvrtcVersion()" 2>/dev/null; then
    requirements cuda >"$VENV/cuda.txt"
    install_packages -r "$VENV/cuda.txt"
fi
if ! "$VENV/bin/python" -c "import pytest" 2>/dev/null; then
    requirements test >"$VENV/test.txt"
    install_packages -r "$VENV/test.txt" || echo "no pytest: the conformance cases will be left out"
fi

# -P: the source folder gpuvirt/ must not stand before the installed package, which has the built libraries.
PYTHONPATH="$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}" exec "$VENV/bin/python" -P -m real_gpu "$@"
