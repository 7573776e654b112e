# SPDX-License-Identifier: Apache-2.0
"""The soft GPU fails on request: what is asked for happens, to those who are meant, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from support.host import host
from support.soft import MIB, PROGRAMS, SoftGpu, soft_gpu

XID = 8
FIRST = "1013904223"  # of the first step


@pytest.fixture
def gpu() -> Iterator[SoftGpu]:
    with soft_gpu() as ready:
        yield ready


@pytest.mark.parametrize("mode", ["error OUT_OF_MEMORY", "error UNKNOWN", "kill"])
def test_each_call_of_a_program_fails_once(gpu: SoftGpu, mode: str) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "fail_each.py"), *mode.split()],
        env=gpu.environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) >= 22
    assert gpu.used() == 0
    assert gpu.rules() == []


def test_rules_of_the_environment_are_for_one_process(gpu: SoftGpu) -> None:
    rules = "cuMemAlloc:2:OUT_OF_MEMORY; cuCtxSynchronize:1+:delay=300ms"
    failing, healthy = gpu.worker(GPUVIRT_SOFTGPU_FAULTS=rules), gpu.worker()
    for worker in (failing, healthy):
        worker.do("import time")
    assert failing.do("call(cu.cuMemAlloc, 100)") == "CUDA_ERROR_OUT_OF_MEMORY"
    assert failing.do("call(cu.cuMemAlloc, 100) and 1") == "1"
    assert healthy.do("call(cu.cuMemAlloc, 100) and 1") == "1"
    clock = "(time.monotonic(), call(cu.cuCtxSynchronize), time.monotonic())"
    start, _, end = eval(failing.do(clock))
    assert end - start > 0.29
    start, _, end = eval(healthy.do(clock))
    assert end - start < 0.29
    assert len(gpu.rules()) == 2
    failing.close()
    assert gpu.rules() == []  # they go with their process


def test_a_wrong_rule_is_told(gpu: SoftGpu) -> None:
    with pytest.raises(AssertionError, match="unknown action 'hangs'"):
        gpu.fault("add", "cuInit:1:hangs")
    with pytest.raises(AssertionError, match="no fault rule 77"):
        gpu.fault("clear", 77)


def test_a_call_hangs_until_the_rule_is_cleared(gpu: SoftGpu) -> None:
    hanging, other = gpu.worker(), gpu.worker()
    rule = gpu.fault("add", f"cuStreamSynchronize:1:hang:pid={hanging.pid}")
    hanging.say("work.step()")
    assert hanging.silent(0.5)
    assert other.do("work.step()") == FIRST
    gpu.fault("clear", rule)
    assert hanging.hear() == FIRST


def test_killed_in_a_call(gpu: SoftGpu) -> None:
    worker = gpu.worker()
    gpu.fault("add", f"cuLaunch*:1:kill:pid={worker.pid}")
    worker.say("work.step()")
    with pytest.raises(EOFError):
        worker.hear()
    assert worker.process.wait() == -signal.SIGKILL
    assert gpu.used() == 0


def test_nvml_that_hangs_leaves_others_alone(gpu: SoftGpu) -> None:
    worker = gpu.worker()
    assert gpu.pids() == [worker.pid]
    gpu.fault("add", "nvmlDeviceGetMemoryInfo*:*:hang", "nvmlDeviceGetTemperature:*:NVML_ERROR_GPU_IS_LOST")
    with pytest.raises(subprocess.TimeoutExpired):
        gpu.nvml("nvmlDeviceGetMemoryInfo(gpu).used", limit=2.0)
    assert gpu.nvml("nvmlDeviceGetTemperature(gpu, 0)") == "NVMLError_GpuIsLost"
    assert gpu.pids() == [worker.pid]
    assert worker.do("work.step()") == FIRST
    gpu.fault("clear")
    assert gpu.used() > 0


def test_nvml_rules_of_the_environment(gpu: SoftGpu) -> None:
    environ = gpu.environ
    gpu.environ = {**environ, "GPUVIRT_SOFTGPU_FAULTS": "nvmlDeviceGetName:2:TIMEOUT;cuInit:1:NO_DEVICE"}
    names = "nvmlDeviceGetName(gpu) and nvmlDeviceGetName(gpu)"
    assert gpu.nvml(names) == "NVMLError_Timeout"
    gpu.environ = environ
    assert "Soft GPU" in gpu.nvml(names)


def test_a_kernel_that_never_ends(gpu: SoftGpu) -> None:
    stuck, other = gpu.worker(), gpu.worker()
    rule = gpu.fault("add", f"kernel.mix:1:hang:pid={stuck.pid}")
    stuck.say("work.step()")
    assert stuck.silent(0.7)
    assert int(gpu.nvml("nvmlDeviceGetUtilizationRates(gpu).gpu")) > 50
    assert other.do("work.step()") == FIRST  # it gets its slices
    gpu.fault("clear", rule)
    assert stuck.hear() == FIRST
    gpu.fault("add", f"kernel.mix:1:hang:pid={stuck.pid}")
    stuck.say("work.step()")
    assert stuck.silent(0.2)
    stuck.close()  # can be killed
    assert gpu.pids() == [other.pid]
    assert other.do("work.step() != 0") == "True"


def test_an_illegal_address_in_a_kernel_of_one_process(gpu: SoftGpu) -> None:
    victim, other = gpu.worker(), gpu.worker()
    gpu.fault("add", f"kernel.*:1:ILLEGAL_ADDRESS:pid={victim.pid}")
    assert victim.do("work.step()") == "CUDA_ERROR_ILLEGAL_ADDRESS"
    assert victim.do("work.word()") == "CUDA_ERROR_ILLEGAL_ADDRESS"  # sticky
    assert other.do("work.step()") == FIRST
    (event,) = gpu.events()
    assert (event["type"], event["data"], event["pid"]) == (XID, 31, victim.pid)


@pytest.mark.parametrize(("what", "error", "xid"), [("wild", "ILLEGAL_ADDRESS", 31), ("trap", "LAUNCH_FAILED", 13)])
def test_errors_of_kernels_raise_xids(gpu: SoftGpu, what: str, error: str, xid: int) -> None:
    worker = gpu.worker()
    assert worker.do(f"work.{what}()") == f"CUDA_ERROR_{error}"
    assert [(e["type"], e["data"], e["pid"]) for e in gpu.events()] == [(XID, xid, worker.pid)]


def test_nvml_waits_for_events(gpu: SoftGpu) -> None:
    code = """
import sys, time
from pynvml import *
nvmlInit()
gpu = nvmlDeviceGetHandleByIndex(0)
events = nvmlEventSetCreate()
nvmlDeviceRegisterEvents(gpu, nvmlDeviceGetSupportedEventTypes(gpu), events)
start = time.monotonic()
try:
    nvmlEventSetWait_v2(events, 200)
except NVMLError_Timeout:
    print(0.15 < time.monotonic() - start < 5, flush=True)
for line in sys.stdin:
    event = nvmlEventSetWait_v2(events, 5000)
    index = nvmlDeviceGetIndex(event.device)
    print(event.eventType, event.eventData, index, flush=True)
"""
    listener = subprocess.Popen(
        [sys.executable, "-c", code], env=gpu.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert listener.stdout is not None and listener.stdin is not None
    try:
        assert listener.stdout.readline() == "True\n"
        for number in (13, 94):
            listener.stdin.write("\n")
            listener.stdin.flush()
            time.sleep(0.1)
            gpu.fault("xid", 0, number, "--pid", 1)
            assert listener.stdout.readline() == f"8 {number} 0\n"
        gpu.fault("ecc", 0, "--uncorrected", "--count", 2)
        gpu.fault("ecc", 0, "--corrected")
        listener.stdin.write("\n\n\n")
        listener.stdin.flush()
        assert [listener.stdout.readline() for _ in range(3)] == ["2 0 0\n", "8 48 0\n", "1 0 0\n"]
    finally:
        listener.kill()
        listener.communicate()
    assert gpu.nvml("[nvmlDeviceGetTotalEccErrors(gpu, k, c) for k in (0, 1) for c in (0, 1)]") == "[1, 1, 2, 2]"
    gpu.fault("remap", 0, "--count", 3)
    assert gpu.nvml("nvmlDeviceGetRemappedRows(gpu)") == "(0, 3, 1, 0)"


def test_a_device_falls_off_and_comes_back(gpu: SoftGpu) -> None:
    worker, stuck = gpu.worker(), gpu.worker()
    gpu.fault("add", f"kernel.mix:1:hang:pid={stuck.pid}")
    stuck.say("work.step()")
    assert stuck.silent(0.2)
    gpu.fault("lose", 0)
    assert stuck.hear() == "CUDA_ERROR_DEVICE_UNAVAILABLE"
    assert worker.do("work.step()") == "CUDA_ERROR_DEVICE_UNAVAILABLE"
    assert worker.do("call(cu.cuMemAlloc, 100)") == "CUDA_ERROR_DEVICE_UNAVAILABLE"
    assert worker.do("work.open()") == "CUDA_ERROR_DEVICE_UNAVAILABLE"
    assert gpu.nvml("nvmlDeviceGetMemoryInfo(gpu)") == "NVMLError_GpuIsLost"
    assert gpu.nvml("nvmlDeviceGetCount()") == "NVMLError_GpuIsLost"  # of the handle by index
    assert [event["data"] for event in gpu.events()] == [79]
    gpu.fault("recover", 0)
    assert worker.do("work.step()") == "CUDA_ERROR_DEVICE_UNAVAILABLE"  # a context of before is dead for ever
    assert worker.do("call(cu.cuCtxDestroy, work.context)") == "()"
    assert worker.do("work.open()") == "None"
    assert worker.do("work.step()") == FIRST
    assert gpu.worker().do("work.step()") == FIRST


def test_less_memory_while_running(gpu: SoftGpu) -> None:
    worker = gpu.worker()
    used = gpu.used()
    gpu.fault("withhold", 0, "56M")
    assert worker.do("call(cu.cuMemAlloc, 10 << 20)") == "CUDA_ERROR_OUT_OF_MEMORY"
    assert worker.do("call(cu.cuMemGetInfo)[0] < 8 << 20") == "True"
    gpu.fault("stranger", 0, 4242, "1M")
    assert gpu.pids() == [worker.pid, 4242]
    assert gpu.used() == used + 57 * MIB
    gpu.fault("withhold", 0, "0")
    gpu.fault("stranger", 0, 4242, "0")
    assert gpu.used() == used
    assert worker.do("call(cu.cuMemAlloc, 10 << 20) and 1") == "1"


def test_a_slow_link_in_one_direction(gpu: SoftGpu) -> None:
    worker = gpu.worker()
    worker.do("import time")
    read = "(time.monotonic(), work.read(), time.monotonic())"
    write = read.replace("read", "write")
    gpu.fault("add", "copy.from_device:*:rate=10M")  # 4 MiB: 0.4 s
    start, _, end = eval(worker.do(read))
    assert 0.35 < end - start < 3
    start, _, end = eval(worker.do(write))
    assert end - start < 0.3


def test_a_copy_that_stalls_or_lies(gpu: SoftGpu) -> None:
    worker = gpu.worker()
    rule = gpu.fault("add", "copy.from_device:3:hang")
    worker.say("work.read()")
    assert worker.silent(0.4)
    assert [row["calls"] for row in gpu.rules()] == [3]
    gpu.fault("clear", rule)
    assert worker.hear() == str(4 * MIB)
    gpu.fault("add", "copy.from_device:1:corrupt")
    assert worker.do("work.word()") == "1"
    assert worker.do("work.word()") == "0"


def test_pinning_fails(gpu: SoftGpu) -> None:
    worker = gpu.worker()
    gpu.fault("add", "cuMemHost*:1:OUT_OF_MEMORY")
    assert worker.do("call(cu.cuMemHostAlloc, 4096, 0)") == "CUDA_ERROR_OUT_OF_MEMORY"
    assert worker.do("call(cu.cuMemHostAlloc, 4096, 0) and 1") == "1"


def test_a_rule_for_one_of_two_devices() -> None:
    with soft_gpu(devices=2) as gpu:
        first, second = gpu.worker(), gpu.worker()
        assert second.do("call(cu.cuCtxDestroy, work.context); work.open(1)") == "None"
        gpu.fault("add", "cuMemAlloc:*:OUT_OF_MEMORY:device=1")
        assert first.do("call(cu.cuMemAlloc, 100) and 1") == "1"
        assert second.do("call(cu.cuMemAlloc, 100)") == "CUDA_ERROR_OUT_OF_MEMORY"
        gpu.fault("lose", 1)
        assert second.do("work.step()") == "CUDA_ERROR_DEVICE_UNAVAILABLE"
        assert first.do("work.step()") == FIRST


def test_many_kills_with_rules_armed(gpu: SoftGpu) -> None:
    """Processes that die anywhere leave the board usable, their own rules gone."""
    workers = [gpu.worker(GPUVIRT_SOFTGPU_FAULTS="copy.*:*:delay=1ms") for _ in range(3)]
    assert len(gpu.rules()) == 3
    for worker in workers:
        worker.say("work.read()")
        os.kill(worker.pid, signal.SIGKILL)
        worker.process.wait()
    assert gpu.rules() == []
    assert gpu.used() == 0
    assert gpu.worker().do("work.step()") == FIRST


@pytest.mark.parametrize("error", ["OUT_OF_MEMORY", "UNKNOWN"])
def test_each_call_under_gpuvirt_fails_once(error: str) -> None:
    """The shim passes the error on or copes with it: no crash, and the device is empty afterwards."""
    with host() as machine:
        job = machine.job("fail_each.py", "error", error)
        assert job.wait(120.0) == 0, machine.report()
        assert int(job.text.split()[-1]) > 10
        machine.until(lambda: machine.device_used() == 0, "the soft GPU to be empty")
