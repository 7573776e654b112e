# SPDX-License-Identifier: Apache-2.0
"""NVML inside a job: monitors of others, unmodified, see what the job may use, what it uses and its own processes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpuvirt import elf, paths
from support.host import BIN, MIB, PROGRAMS, Host, Program, host
from support.lookups import compile_c, plain_environ
from support.native import build

LIMIT = ("--memory", "100M")
WIDE = {"COLUMNS": "400", "LINES": "50", "TERM": "dumb"}
QUESTIONS = (
    "import json, sys, time, pynvml as n\n"
    "n.nvmlInit()\n"
    "handles = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]\n"
    "def ask(h):\n"
    "    m, v = n.nvmlDeviceGetMemoryInfo(h), n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2)\n"
    "    assert (m.total, m.used, m.free) == (v.total, v.used, v.free), (m, v)\n"
    "    lists = [n.nvmlDeviceGetComputeRunningProcesses_v2, n.nvmlDeviceGetComputeRunningProcesses_v3]\n"
    "    one, two = ([[p.pid, p.usedGpuMemory >> 20] for p in f(h)] for f in lists)\n"
    "    assert one == two, (one, two)\n"
    "    others = [*n.nvmlDeviceGetGraphicsRunningProcesses(h), *n.nvmlDeviceGetMPSComputeRunningProcesses(h)]\n"
    "    assert not others, others\n"
    "    return {'total': m.total >> 20, 'used': m.used >> 20, 'free': m.free >> 20, 'processes': one,\n"
    "            'uuid': n.nvmlDeviceGetUUID(h), 'bus': n.nvmlDeviceGetPciInfo(h).busId,\n"
    "            'name': n.nvmlDeviceGetName(h), 'driver': n.nvmlSystemGetDriverVersion()}\n"
    "def say(what=''): print('seen', json.dumps([ask(h) for h in handles]), flush=True)\n"
)  # fmt: skip


def seen(program: Program, code: int = 0) -> list[dict[str, object]]:
    """The devices of the last line `seen [...]`."""
    assert program.wait() == code, program.text
    lines = [line for line in program.lines if line.startswith("seen ")]
    assert lines, program.text
    devices: list[dict[str, object]] = json.loads(lines[-1].removeprefix("seen "))
    return devices


@pytest.fixture
def neighbour(machine: Host) -> Program:
    """Another job with 48 MiB, which nobody must see."""
    program = machine.job("mixer.py", "--memory", "48", "--seconds", "100", name="neighbour")
    program.wait_for("step 1")
    return program


def watched(machine: Host, *command: str, memory: int = 16) -> Program:
    """`command` beside a busy process in one job of 100 MiB."""
    return machine.job("watched.py", str(memory), *command, name="watched", options=LIMIT, **WIDE)


def worker_of(program: Program) -> int:
    return int(program.wait_for("worker ").split()[1])


def test_nvitop(machine: Host, neighbour: Program) -> None:
    program = watched(machine, str(BIN / "nvitop"), "--once")
    worker = worker_of(program)
    assert program.wait() == 0, program.text
    assert "16.00MiB / 100.0MiB" in program.text and "16.0%" in program.text, program.text
    rows = [line for line in program.lines if "mixer.py" in line]
    assert len(rows) == 1 and f" {worker} C" in rows[0] and "16.00MiB" in rows[0], program.text
    share = re.search(r"MiB\s+(\d+)\s", rows[0])
    assert share is not None and 0 < int(share.group(1)) <= 100, rows[0]


def test_gpustat(machine: Host, neighbour: Program) -> None:
    program = watched(machine, str(BIN / "gpustat"), "--json", "--show-pid", "--show-cmd")
    worker = worker_of(program)
    assert program.wait() == 0, program.text
    [gpu] = json.loads("\n".join(program.lines[1:-1]))["gpus"]
    assert (gpu["memory.used"], gpu["memory.total"]) == (16, 100)
    assert gpu["utilization.gpu"] > 5, "the device's own, neighbours included"
    assert [(process["pid"], process["gpu_memory_usage"]) for process in gpu["processes"]] == [(worker, 16)]


def test_a_program_that_only_looks_is_no_client(machine: Host, neighbour: Program) -> None:
    program = machine.run(sys.executable, "-c", QUESTIONS + "say()", name="looker", options=LIMIT)
    [device] = seen(program)
    assert (device["total"], device["used"], device["free"], device["processes"]) == (100, 0, 100, [])
    assert machine.job_named("neighbour")["pids"] != []
    assert machine.admin.call("status", all=True)["jobs"][-1]["attached"] is False


def test_from_another_pid_namespace(machine: Host) -> None:
    """Processes that the asking one cannot see are not listed under wrong numbers; what they have counts."""
    inside = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not make pid namespaces")
    program = watched(machine, *inside, sys.executable, "-c", QUESTIONS + "say()")
    [device] = seen(program)
    assert (device["total"], device["used"], device["processes"]) == (100, 16, [])


def test_the_same_as_cuda_says(machine: Host) -> None:
    """Memory that was allocated and not used yet, and memory that was freed, as cuMemGetInfo has it."""
    code = (
        f"sys.path.insert(0, {str(PROGRAMS)!r})\n"
        "from device import *\n"
        "open_device()\n"
        "def same():\n"
        "  time.sleep(0.15)\n"
        "  free, total = call(cu.cuMemGetInfo); m = n.nvmlDeviceGetMemoryInfo(handles[0])\n"
        "  assert abs(m.total - total) < 2 << 20 and abs(m.free - free) < 2 << 20, (m, free, total)\n"
        "  return m.used >> 20\n"
        "used = [same()]\n"
        "pieces = [call(cu.cuMemAlloc, 20 << 20) for _ in range(2)]; used.append(same())\n"
        "call(cu.cuMemFree, pieces[0]); used.append(same())\n"
        "assert used == [0, 40, 20], used\nsay()\n"
    )
    [device] = seen(machine.run(sys.executable, "-c", QUESTIONS + code, options=LIMIT))
    assert device["used"] == 20


def test_polling_costs_nothing(machine: Host) -> None:
    code = "end = time.time() + 0.6\nwhile time.time() < end: ask(handles[0])\nsay()"
    before = machine.status()["daemon"]["counters"].get("queries", 0)
    seen(machine.run(sys.executable, "-c", QUESTIONS + code))
    asked = machine.status()["daemon"]["counters"]["queries"] - before
    assert 2 <= asked <= 9, asked


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_daemon_away(machine: Host, how: str) -> None:
    """The last known answer, and no call takes long."""
    code = (
        "say()\nprint('asked', flush=True)\nworst = 0\n"
        "while not open(sys.argv[1]).read(): time.sleep(0.02)\n"
        "end = time.time() + 0.8\n"
        "while time.time() < end:\n  t = time.time(); ask(handles[0]); worst = max(worst, time.time() - t)\n"
        "print('worst', worst)\nsay()"
    )
    flag = machine.folder / "flag"
    flag.touch()
    program = machine.run(sys.executable, "-c", QUESTIONS + code, str(flag), options=LIMIT)
    program.wait_for("asked")
    daemon = machine.daemon
    assert daemon is not None
    daemon.kill(signal.SIGSTOP if how == "stopped" else signal.SIGKILL)
    flag.write_text("now")
    try:
        line = program.wait_for("worst")
    finally:
        daemon.kill(signal.SIGCONT)
    assert float(line.split()[1]) < 1.0, line
    program.wait(30)
    last = json.loads([line for line in program.lines if line.startswith("seen ")][-1].removeprefix("seen "))
    assert (last[0]["total"], last[0]["used"]) == (100, 0), program.text


def test_linked_and_as_pytorch_asks(machine: Host, neighbour: Program) -> None:
    folder = build("", "nvml_linked")
    program = watched(machine, str(folder / "tests/nvml_shim/nvml_linked"))
    worker = worker_of(program)
    assert program.wait() == 0, program.text
    assert f"linked: total 100 used 16 processes 1 {worker}:16" in program.lines, program.text
    assert f"c10: processes 1 {worker}:16" in program.lines, program.text


def test_nothing_is_opened_before_the_first_call(machine: Host) -> None:
    program = machine.run("cat", "/proc/self/maps", options=("-q",))
    assert program.wait() == 0
    assert "libgpuvirt-nvml.so" in program.text
    assert "softgpu/libnvidia-ml.so.1" not in program.text


def test_names_that_programs_open(machine: Host) -> None:
    code = (
        "import ctypes, sys\n"
        "from gpuvirt.cli.preload_probe import file_of_address as find\n"
        "for name in ('libnvidia-ml.so', 'libnvidia-ml.so.1'):\n"
        "  a = ctypes.cast(ctypes.CDLL(name).nvmlInit_v2, ctypes.c_void_p).value\n"
        "  print(find(a, open('/proc/self/maps').read()))\n"
    )
    program = machine.run(sys.executable, "-c", code, options=("-q",))
    assert program.wait() == 0, program.text
    assert program.lines == [str(paths.library("libgpuvirt-nvml.so"))] * 2


def test_everything_that_nvml_has_is_there() -> None:
    shim, soft = paths.library("libgpuvirt-nvml.so"), paths.library("softgpu/libnvidia-ml.so.1")
    assert elf.read(shim).soname == "libnvidia-ml.so.1"
    missing = elf.exported_symbols(soft) - elf.exported_symbols(shim)
    assert not {name for name in missing if name.startswith("nvml")}
    assert all(name.startswith("nvml") for name in elf.exported_symbols(shim))
    pynvml = pytest.importorskip("pynvml")
    used = set(re.findall(r'_nvmlGetFunctionPointer\("(\w+)"\)', Path(pynvml.__file__).read_text()))
    assert len(used) > 300 and used <= elf.exported_symbols(shim)


def test_outside_a_job_nothing_changes(machine: Host, neighbour: Program) -> None:
    """Preloaded without a job (as in a program that was started by hand with the same LD_PRELOAD)."""
    shim, soft = paths.library("libgpuvirt-nvml.so"), paths.library("softgpu/libnvidia-ml.so.1")
    answers = []
    for extra in ({}, {"LD_PRELOAD": str(shim), "GPUVIRT_NVML": str(soft)}):
        program = machine.start([sys.executable, "-c", QUESTIONS + "say()"], **extra)
        answers.append(seen(program))
    assert answers[0] == answers[1] and answers[0][0]["total"] == 256
    [[pid, megabytes]] = answers[0][0]["processes"]  # type: ignore[misc]
    assert pid == neighbour.child_pid() and megabytes >= 48


@pytest.fixture
def two_gpus() -> Iterator[Host]:
    with host(options={"GPUVIRT_SOFTGPU_PROFILE": "h100-80gb,t4", "GPUVIRT_SOFTGPU_WORKERS": "1"}) as ready:
        yield ready


def test_each_gpu_has_its_own(two_gpus: Host) -> None:
    """Two processes of one job on two GPUs; the identities are the devices' own."""
    inner = [sys.executable, str(PROGRAMS / "watched.py"), "8@1", sys.executable, "-c", QUESTIONS + "say()"]
    program = two_gpus.job("watched.py", "24@1", *inner, options=LIMIT)
    both = seen(program)
    first, second = [int(line.split()[1]) for line in program.lines if re.match(r"worker \d", line)]
    assert both[0]["processes"] == [] and both[0]["used"] == 0
    assert both[1]["processes"] == [[first, 24], [second, 8]] and both[1]["used"] == 32
    plain = seen(two_gpus.start([sys.executable, "-c", QUESTIONS + "say()"]))
    for mine, device in zip(both, plain, strict=True):
        assert all(mine[key] == device[key] for key in ("uuid", "bus", "name", "driver"))
        assert (mine["total"], device["total"]) == (100, 256)


def test_daemon_and_doctor_see_the_device_itself(machine: Host, neighbour: Program) -> None:
    """Also when they are started inside a job."""
    inside: Callable[..., Program] = machine.run
    program = inside(str(BIN / "gpuvirt"), "doctor", "-o", "json", options=("-q", *LIMIT))
    program.wait()
    report = {entry["name"]: entry for entry in json.loads(program.text)}
    assert "256 MiB" in report["nvml"]["message"], program.text
    done = subprocess.run(
        [str(BIN / "gpuvirt"), "gpus", "-o", "json"], env=machine.environ(), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)[0]["memory_total"] == 256 * MIB


def test_first_call_in_a_constructor(tmp_path: Path) -> None:
    """Under the loader's lock, while another thread's first call waits for that lock: nobody may wait for us."""
    call = '-DFIRST_CALL="nvmlInitWithFlags"'
    library = compile_c(PROGRAMS / "constructor.c", tmp_path / "library.so", "-shared", call)
    program = compile_c(PROGRAMS / "constructor.c", tmp_path / "program", "-DPROGRAM", "-rdynamic", call)
    real, shim = paths.library("softgpu/libnvidia-ml.so.1"), paths.library("libgpuvirt-nvml.so")
    environ = plain_environ(LD_PRELOAD=str(shim), GPUVIRT_NVML=str(real), GPUVIRT_SOFTGPU_BOARD=str(tmp_path / "board"))
    done = subprocess.run(
        [str(program), str(library)], env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["constructor", "0", "thread", "0"]), done.stderr
