# SPDX-License-Identifier: Apache-2.0
"""What `gpuvirt doctor` looks at, one function a finding. None changes anything but for a job that starts and ends."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gpuvirt
from gpuvirt import elf, paths
from gpuvirt.cli import connection, environment
from gpuvirt.errors import GpuvirtError
from gpuvirt.units import format_size

OK, WARN, FAIL = "ok", "warn", "fail"
PROBE_TIMEOUT_S = 20
_SHM_WANTED = 1 << 30  # bytes: below this, jobs that are swapped out soon fill the host's shared memory
_MEMLOCK_WANTED = 64 << 20  # bytes


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    name: str
    state: str  # OK, WARN: works with a drawback, FAIL: does not work
    message: str
    fix: str = ""
    facts: dict[str, Any] = field(default_factory=dict)  # the same in figures, for programs


@dataclass
class Patient:
    """What later findings need from earlier ones."""

    status: dict[str, Any] | None = None  # the daemon's, when it answers
    driver: Path | None = None
    soft: bool = False
    driver_version: str = ""
    cuda_version: int | None = None  # of the driver, for example 13050
    on_gpu: dict[int, int] = field(default_factory=dict)  # pid -> index of the GPU, as NVML lists them


def python(patient: Patient) -> Finding:
    """Which Python runs this? (One that is too old could not import it.)"""
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("python", OK, f"{version} ({sys.executable})")


def libraries(patient: Patient) -> Finding:
    """Are the shim, the soft GPU and the C part of the Python package built, with the names that loaders look for?"""
    fix = "install gpuvirt with pip, which builds them"
    sonames = {
        "libgpuvirt-shim.so": "libcuda.so.1",
        "libgpuvirt-nvml.so": "libnvidia-ml.so.1",
        "softgpu/libcuda.so.1": "libcuda.so.1",
        "softgpu/libnvidia-ml.so.1": "libnvidia-ml.so.1",
    }
    for name, soname in sonames.items():
        try:
            found = elf.read(paths.library(name)).soname
        except FileNotFoundError as error:
            return Finding("libraries", FAIL, str(error), fix)
        except (OSError, elf.ElfError) as error:
            return Finding("libraries", FAIL, f"{name} is damaged ({error})", fix)
        if found != soname:
            return Finding("libraries", FAIL, f"{name} has the SONAME {found}, not {soname}", fix)
    try:
        import gpuvirt.control._control_block  # noqa: F401
    except ImportError as error:
        return Finding("libraries", FAIL, f"the C part of the package cannot be imported ({error})", fix)
    return Finding("libraries", OK, f"shims and soft GPU in {paths.library('libgpuvirt-shim.so').parent}")


def daemon(patient: Patient) -> Finding:
    """Does a daemon answer, and is it of this version?"""
    try:
        patient.status = connection.connect().call("status")
    except GpuvirtError as error:
        return Finding("daemon", FAIL, error.message, error.hint or "start it with 'gpuvirtd'")
    facts = patient.status.get("daemon", {})
    version = str(facts.get("version", "unknown"))
    described = (
        f"gpuvirtd {version}, generation {facts.get('generation')}, pid {facts.get('pid')}, in {facts.get('runtime')}"
    )
    if version != gpuvirt.__version__:
        return Finding(
            "daemon", WARN, f"{described}; this is gpuvirt {gpuvirt.__version__}", "restart gpuvirtd after an upgrade"
        )
    return Finding("daemon", OK, described)


def sockets(patient: Patient) -> Finding | None:
    """Can this user's programs use both sockets, and can nobody else replace them?"""
    if patient.status is None:
        return None  # said by `daemon`
    runtime = connection.locate().parent
    mode = runtime.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return Finding("sockets", WARN, f"everybody may write in {runtime}", f"chmod o-w {runtime}")
    client = runtime / paths.CLIENT_SOCKET
    if not client.is_socket():
        return Finding("sockets", FAIL, f"there is no socket {client}", "start gpuvirtd again")
    if not os.access(client, os.R_OK | os.W_OK):
        return Finding(
            "sockets", FAIL, f"programs of this user may not use {client}", "ask the daemon's owner for access"
        )
    return Finding("sockets", OK, str(runtime))


def driver(patient: Patient) -> Finding:
    """Which driver is in use, and is it the soft GPU? The daemon's word counts, else what this machine has."""
    named = (patient.status or {}).get("daemon", {}).get("driver") or os.environ.get("GPUVIRT_DRIVER")
    patient.driver = Path(named) if named else _system_driver()
    where = "in use by the daemon" if patient.status else "no daemon to ask"
    chosen = patient.driver is not None or _in_library_path()
    if patient.driver is None:
        try:
            patient.driver = paths.library("softgpu/libcuda.so.1")
        except FileNotFoundError as error:
            return Finding("driver", FAIL, f"no libcuda.so.1 on this machine, and {error}", "install the NVIDIA driver")
    try:
        exported = elf.exported_symbols(patient.driver)
    except (OSError, elf.ElfError) as error:
        return Finding(
            "driver", FAIL, f"{patient.driver} cannot be used ({error})", "reinstall the driver, or use the soft GPU"
        )
    patient.soft = patient.driver.parent.name == "softgpu"
    if "cuGetProcAddress_v2" not in exported:
        return Finding("driver", FAIL, f"{patient.driver} is older than CUDA 12", "install a newer NVIDIA driver")
    if not chosen:
        return Finding(
            "driver",
            WARN,
            f"no libcuda.so.1 on this machine; gpuvirtd will find the soft GPU only when told: {patient.driver}",
            'install the NVIDIA driver, or before gpuvirtd: eval "$(gpuvirt soft-gpu env)"',
        )
    kind = "soft GPU (a CPU stand-in; no NVIDIA GPU is used)" if patient.soft else "NVIDIA driver"
    return Finding("driver", OK, f"{kind}, {where}: {patient.driver}")


def _in_library_path() -> bool:
    """Does LD_LIBRARY_PATH lead to a driver, as gpuvirtd looks for one?"""
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return any(folder.startswith("/") and (Path(folder) / "libcuda.so.1").exists() for folder in folders)


def _system_driver() -> Path | None:
    """libcuda.so.1 of the loader's own folders."""
    for folder in sorted(environment.system_folders()):
        path = Path(folder) / "libcuda.so.1"
        if path.exists():
            return path.resolve()
    return None


@contextlib.contextmanager
def trial_job(patient: Patient) -> Iterator[environment.Attachment]:
    """How programs attach: by a job of the daemon that ends again, else by what the daemon would make.

    Raises FileNotFoundError when the shim is not built, and what the daemon's client raises.
    """
    if patient.status is not None:
        from gpuvirt.cli.run import attachment_of, end_job

        client = connection.connect()
        words = ["gpuvirt", "doctor"]
        answer = client.call("create_job", name="doctor", weight=1, command=words, pid=os.getpid(), trial=True)
        try:
            yield attachment_of(answer)
        finally:
            end_job(client, str(answer.get("job")))  # a daemon that was restarted meanwhile is no fault of the trial's
        return
    shim = paths.library("libgpuvirt-shim.so")
    with tempfile.TemporaryDirectory(prefix="gpuvirt-doctor-") as folder:
        nvml_shim = paths.library("libgpuvirt-nvml.so")
        for name in ("libcuda.so", "libcuda.so.1"):
            (Path(folder) / name).symlink_to(shim)
        for name in ("libnvidia-ml.so", "libnvidia-ml.so.1"):
            (Path(folder) / name).symlink_to(nvml_shim)
        # A soft GPU that nobody has made yet is not to be made by looking at it.
        board = {} if "GPUVIRT_SOFTGPU_BOARD" in os.environ else {"GPUVIRT_SOFTGPU_BOARD": f"{folder}/board"}
        library = patient.driver.parent / "libnvidia-ml.so.1" if patient.driver is not None else None
        facts = board if patient.soft else {}
        if patient.driver is not None:
            facts = {**facts, "GPUVIRT_DRIVER": str(patient.driver)}
        yield environment.Attachment(shim, Path(folder), library, facts, nvml_shim)


def driver_folder(job: environment.Attachment) -> Path | None:
    """Where the real NVML lies, when the loader does not look there by itself."""
    folder = job.nvml.parent if job.nvml is not None and job.nvml.exists() else None
    return None if folder is None or str(folder) in environment.system_folders() else folder


def nvml(patient: Patient) -> Finding:
    """Does NVML load and list GPUs?"""
    from gpuvirt.cli import nvml_probe

    try:
        with trial_job(patient) as job:
            gpus = nvml_probe.ask(driver_folder(job), {**os.environ, **job.environment})
    except FileNotFoundError as error:
        return Finding("nvml", FAIL, str(error), "install gpuvirt with pip, which builds it")
    except GpuvirtError as error:
        return Finding("nvml", FAIL, error.message, error.hint)
    if not gpus:
        return Finding("nvml", FAIL, "NVML lists no GPU", "see 'nvidia-smi', or use the soft GPU")
    patient.driver_version = str(gpus[0]["driver_version"])
    patient.cuda_version = gpus[0].get("cuda_version")
    patient.on_gpu = {int(process["pid"]): int(gpu["index"]) for gpu in gpus for process in gpu.get("processes", [])}
    names = "; ".join(f"{gpu['index']}: {gpu['name']}, {format_size(gpu['memory_total'])}" for gpu in gpus)
    return Finding("nvml", OK, f"driver {gpus[0]['driver_version']}; {names}")


def preload(patient: Patient) -> Finding:
    """Does a program started like `gpuvirt run` does meet the shim on both ways to the driver?"""
    try:
        with trial_job(patient) as job:
            return preload_in(job)
    except FileNotFoundError as error:
        return Finding("preload", FAIL, str(error), "install gpuvirt with pip, which builds it")
    except GpuvirtError as error:
        return Finding("preload", FAIL, error.message, error.hint)


def preload_in(attachment: environment.Attachment) -> Finding:
    """Runs the probe as a program with this attachment."""
    environ = environment.governed(os.environ, attachment, environment.system_folders())
    fix = "see that nothing in this environment resets LD_PRELOAD or LD_LIBRARY_PATH"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gpuvirt.cli.preload_probe"],
            env=environ,
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=True,
        )
        answers = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        return Finding("preload", FAIL, f"a test program under the shim failed ({error})", "see 'libraries' above")
    complaints = [
        line for line in done.stderr.splitlines() if "error while loading" in line or "cannot be preloaded" in line
    ]
    if ours := [line for line in complaints if str(attachment.preload) in line or str(attachment.library_path) in line]:
        return Finding("preload", FAIL, ours[0], fix)
    shim = attachment.preload.resolve()
    for way, found in answers.items():
        if not found or found.startswith("error:") or Path(found).resolve() != shim:
            return Finding("preload", FAIL, f'dlopen("{way}") leads to {found or "nothing"}, not to the shim', fix)
    reached = f"{' and '.join(answers)} lead to the shim"
    if complaints:
        return Finding("preload", WARN, f"{reached}, but {complaints[0]}", "correct LD_PRELOAD of this shell")
    return Finding("preload", OK, reached)


def compiler(patient: Patient) -> Finding | None:
    """The soft GPU translates kernels with a Python and compiles them with a C compiler."""
    if not patient.soft:
        return None
    tools = {
        os.environ.get(
            "GPUVIRT_SOFTGPU_CC", "cc"
        ): "install a C compiler (gcc or clang), or name one in GPUVIRT_SOFTGPU_CC",
        os.environ.get("GPUVIRT_SOFTGPU_PYTHON", "python3"): "name a Python in GPUVIRT_SOFTGPU_PYTHON",
    }
    for tool, fix in tools.items():
        if shutil.which(tool) is None:
            return Finding("compiler", FAIL, f"the soft GPU needs '{tool}', which is not there", fix)
    return Finding("compiler", OK, " and ".join(str(shutil.which(tool)) for tool in tools))


def shared_memory(patient: Patient) -> Finding:
    """Room in /dev/shm."""
    try:
        space = os.statvfs("/dev/shm")
    except OSError as error:
        return Finding("shm", FAIL, f"/dev/shm is not there ({error.strerror})", "mount a tmpfs there")
    free = space.f_bavail * space.f_frsize
    if free < _SHM_WANTED:
        return Finding(
            "shm", WARN, f"only {format_size(free)} free in /dev/shm", "make it larger: --shm-size of the container"
        )
    return Finding("shm", OK, f"{format_size(free)} free in /dev/shm")


def locked_memory(patient: Patient) -> Finding:
    """How much memory a process may lock, for pinned host memory."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return Finding("memlock", OK, "unlimited")
    if soft < _MEMLOCK_WANTED and not patient.soft:
        return Finding(
            "memlock", WARN, f"a process may lock only {format_size(soft)}", "raise it: ulimit -l, or LimitMEMLOCK="
        )
    return Finding("memlock", OK, format_size(soft))
