# SPDX-License-Identifier: Apache-2.0
"""cuCheckpointProcess* on the soft GPU: a checkpointed process has nothing of the device; nobody hangs, whoever dies.

The documented behaviour is in tests/conformance/cases/case_checkpoint.py.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.soft import MIB, SoftGpu, Worker, soft_gpu


@pytest.fixture
def gpu() -> Iterator[SoftGpu]:
    with soft_gpu(devices=2) as ready:
        yield ready


class Caller:
    """A process that checkpoints another."""

    def __init__(self, gpu: SoftGpu, target: Worker) -> None:
        self.worker = gpu.worker(ready=False)
        self.worker.do("call(cu.cuInit, 0)")
        self.worker.do(f"target = Checkpoint({target.pid})")

    def __call__(self, *steps: str) -> str:
        """Does them in this order; the answer of the last."""
        for step in steps:
            answer = self.worker.do(f"target.{step if '(' in step else step + '()'}")
        return answer


def device_parts(pid: int) -> list[str]:
    """Descriptors and mappings of device memory."""
    links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [text for text in links + maps if "memfd:gpuvirt-softgpu" in text]


def test_a_checkpointed_process_holds_nothing_of_the_device(gpu: SoftGpu) -> None:
    target = gpu.worker()
    first = target.do("work.step()")
    target.do("call(cu.cuMemHostAlloc, 1 << 20, 0)")
    caller = Caller(gpu, target)
    used = gpu.used()
    assert used >= 4 * MIB and device_parts(target.pid)
    assert caller("lock", "save") == "OK"
    assert gpu.used() == 0
    assert gpu.pids() == []
    assert device_parts(target.pid) == []
    assert caller("restore") == "OK"
    assert gpu.used() == used
    assert gpu.pids() == [target.pid]
    assert caller("unlock", "state") == "RUNNING"
    assert target.do("work.word()") == first


def test_graphs_live_on(gpu: SoftGpu) -> None:
    target, reference = gpu.worker(), gpu.worker()
    for worker in (target, reference):
        assert worker.do("work.record()") == "None"
    caller = Caller(gpu, target)
    for _ in range(3):
        assert target.do("work.play()") == reference.do("work.play()")
        assert caller("lock", "save", "restore", "unlock") == "OK"
    assert target.do("work.play()") == reference.do("work.play()")


def test_custom_storage_is_not_supported(gpu: SoftGpu) -> None:
    target = gpu.worker()
    caller = Caller(gpu, target)
    assert caller("lock") == "OK"
    caller.worker.do(
        "import ctypes; args = (ctypes.c_void_p * 8)(ctypes.addressof(ctypes.c_void_p())); "
        "driver = ctypes.CDLL('libcuda.so.1')"
    )
    answer = f"cu.CUresult(driver.cuCheckpointProcessCheckpoint({target.pid}, args)).name"
    assert caller.worker.do(answer) == "CUDA_ERROR_NOT_SUPPORTED"
    assert (
        caller.worker.do("cu.CUresult(driver.cuCheckpointOperationComplete(None)).name") == "CUDA_ERROR_NOT_SUPPORTED"
    )
    assert caller("unlock") == "OK"


def test_restore_on_another_device(gpu: SoftGpu) -> None:
    target = gpu.worker()
    first = target.do("work.step()")
    caller = Caller(gpu, target)
    uuid = "bytes(call(cu.cuDeviceGetUuid, 0).bytes).hex()"
    before, used = target.do(uuid), gpu.used()
    assert caller("lock", "save") == "OK"
    assert caller("restore({1: 0})") == "CUDA_ERROR_INVALID_VALUE"  # does not say where device 0 goes
    assert caller("state") == "CHECKPOINTED"
    assert caller("restore({0: 1})", "unlock") == "OK"
    assert (gpu.used(0), gpu.used(1)) == (0, used)
    assert target.do("work.word()") == first
    assert target.do("work.step() != 0") == "True"
    assert target.do(uuid) != before
    assert target.do("call(cu.cuMemAlloc, 10 << 20) and 1") == "1"
    assert gpu.used(0) == 0
    assert caller("lock", "save", "restore({1: 0, 0: 1})", "unlock") == "OK"
    assert target.do(uuid) == before
    assert gpu.used(1) == 0
    assert target.do("work.step() != 0") == "True"


def test_a_checkpointed_process_survives_the_reset_of_its_device(gpu: SoftGpu) -> None:
    target, other = gpu.worker(), gpu.worker()
    first = target.do("work.step()")
    caller = Caller(gpu, target)
    assert caller("lock", "save") == "OK"
    gpu.fault("lose", 0)
    assert caller("restore") == "CUDA_ERROR_DEVICE_UNAVAILABLE"
    assert caller("state") == "CHECKPOINTED"
    gpu.fault("recover", 0)
    assert caller("restore", "unlock") == "OK"
    assert target.do("work.word()") == first
    assert other.do("work.word()") == "CUDA_ERROR_DEVICE_UNAVAILABLE"


def test_memory_of_a_lost_device_cannot_be_saved(gpu: SoftGpu) -> None:
    target = gpu.worker()
    caller = Caller(gpu, target)
    assert caller("lock") == "OK"
    gpu.fault("lose", 0)
    assert caller("save") == "CUDA_ERROR_DEVICE_UNAVAILABLE"
    assert caller("unlock") == "OK"
    assert target.do("work.word()") == "CUDA_ERROR_DEVICE_UNAVAILABLE"


def test_a_process_that_has_started_another_program(gpu: SoftGpu) -> None:
    target = gpu.worker()
    caller = Caller(gpu, target)
    target.say("import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'print(1); input()'])")
    assert target.hear() == "1"
    assert caller("state") == "CUDA_ERROR_NOT_INITIALIZED"
    assert caller("lock") == "CUDA_ERROR_NOT_INITIALIZED"


def test_restore_without_room_is_fatal(gpu: SoftGpu) -> None:
    target, hungry = gpu.worker(), gpu.worker()
    caller = Caller(gpu, target)
    assert caller("lock", "save") == "OK"
    assert hungry.do("call(cu.cuMemAlloc, 58 << 20) and 1") == "1"
    assert caller("restore") == "CUDA_ERROR_OUT_OF_MEMORY"
    hungry.close()
    assert caller("state") == "FAILED"
    assert caller("restore") == "CUDA_ERROR_OPERATING_SYSTEM"
    assert caller("unlock") == "CUDA_ERROR_ILLEGAL_STATE"
    assert caller("lock") == "CUDA_ERROR_ILLEGAL_STATE"
    target.say("work.step()")
    assert target.silent(0.3)
    target.close()
    assert gpu.used() == 0
    assert caller("state") == "CUDA_ERROR_INVALID_VALUE"


def test_restore_that_fails_on_request(gpu: SoftGpu) -> None:
    target = gpu.worker()
    caller = Caller(gpu, target)
    gpu.fault("add", "checkpoint.restore:1:OUT_OF_MEMORY", "cuCheckpointProcessGetState:1:delay=400ms")
    assert caller("lock", "save", "restore") == "CUDA_ERROR_OUT_OF_MEMORY"
    start = time.monotonic()
    assert caller("state") == "FAILED"
    assert time.monotonic() - start > 0.39


def test_a_checkpoint_that_fails_leaves_it_locked(gpu: SoftGpu) -> None:
    target = gpu.worker()
    caller = Caller(gpu, target)
    gpu.fault("add", "checkpoint.save:3:OUT_OF_MEMORY")
    assert caller("lock", "save") == "CUDA_ERROR_OUT_OF_MEMORY"
    assert caller("state") == "LOCKED"
    assert caller("save", "restore", "unlock") == "OK"
    assert target.do("work.step()") == "1013904223"


def test_lock_of_a_kernel_that_never_ends(gpu: SoftGpu) -> None:
    target = gpu.worker()
    caller = Caller(gpu, target)
    rule = gpu.fault("add", f"kernel.mix:1:hang:pid={target.pid}")
    target.do("work.launch()")
    assert caller("lock(300)") == "CUDA_ERROR_NOT_READY"
    assert caller("state") == "RUNNING"
    assert target.do("call(cu.cuStreamQuery, work.stream)") == "CUDA_ERROR_NOT_READY"  # calls work
    gpu.fault("clear", rule)
    assert target.do("work.step() != 0") == "True"
    assert caller("lock(300)", "unlock") == "OK"


def test_exported_memory_is_refused(gpu: SoftGpu) -> None:
    target = gpu.worker()
    target.do(
        "prop = cu.CUmemAllocationProp(); T = cu.CUmemAllocationHandleType; "
        "prop.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED; "
        "prop.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE; "
        "prop.requestedHandleTypes = T.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR; "
        "handle = call(cu.cuMemCreate, 2 << 20, prop, 0); "
        "fd = call(cu.cuMemExportToShareableHandle, handle, prop.requestedHandleTypes, 0)"
    )
    assert target.do("fd > 2") == "True"
    caller = Caller(gpu, target)
    assert caller("lock", "save") == "CUDA_ERROR_NOT_SUPPORTED"
    assert caller("state") == "LOCKED"
    assert caller("unlock") == "OK"
    assert target.do("work.step()") == "1013904223"


def test_a_stopped_process(gpu: SoftGpu) -> None:
    target = gpu.worker()
    caller = Caller(gpu, target)
    os.kill(target.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, target.pid, os.WSTOPPED)
    try:
        assert caller("lock(200)") == "CUDA_ERROR_NOT_READY"
    finally:
        os.kill(target.pid, signal.SIGCONT)
    assert target.do("work.step()") == "1013904223"
    assert caller("lock", "unlock") == "OK"


@pytest.mark.parametrize("steps", [["lock"], ["lock", "save"], ["lock", "save", "restore"]])
def test_the_target_dies_in_any_state(gpu: SoftGpu, steps: list[str]) -> None:
    target = gpu.worker()
    caller = Caller(gpu, target)
    assert caller(*steps) == "OK"
    target.close()
    assert caller("state") == "CUDA_ERROR_INVALID_VALUE"
    assert gpu.used() == 0
    assert gpu.pids() == []


def test_the_target_dies_while_it_is_saved(gpu: SoftGpu) -> None:
    target = gpu.worker()
    caller = Caller(gpu, target)
    gpu.fault("add", "checkpoint.save:*:rate=2M")
    assert caller("lock") == "OK"
    caller.worker.say("target.save()")
    time.sleep(0.3)
    target.close()
    assert caller.worker.hear(5) == "CUDA_ERROR_INVALID_VALUE"
    assert gpu.used() == 0


def test_callers_die_at_any_moment(gpu: SoftGpu) -> None:
    """Whatever a caller was doing when it was killed, the next one can go on from a state, and no byte is wrong."""
    chance = random.Random(7)
    target = gpu.worker()
    first = target.do("work.step()")
    gpu.fault("add", "checkpoint.*:*:rate=100M")  # 4 MiB: 40 ms each way
    for _ in range(8):
        caller = Caller(gpu, target)
        caller.worker.do("import itertools")
        caller.worker.say(
            "[(target.lock(), target.save(), target.restore(), target.unlock()) for _ in itertools.count()]"
        )
        time.sleep(chance.uniform(0.01, 0.4))
        caller.worker.close()
        last = Caller(gpu, target)
        deadline = time.monotonic() + 10
        while last("state") != "RUNNING" and time.monotonic() < deadline:
            step = {"LOCKED": "unlock", "CHECKPOINTED": "restore"}[last("state")]
            assert last(step) in ("OK", "CUDA_ERROR_ILLEGAL_STATE")  # what the dead one began may still go on
        assert target.do("work.word()", 10) == first
        last.worker.close()
    assert gpu.pids() == [target.pid]
