# SPDX-License-Identifier: Apache-2.0
"""cuCheckpointProcess*: lock, checkpoint, restore, unlock of another process and of the own one."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, compile_ptx, native, result
from support.peer import Channel

RUNNING, LOCKED, CHECKPOINTED = (
    getattr(cu.CUprocessState, f"CU_PROCESS_STATE_{name}") for name in ("RUNNING", "LOCKED", "CHECKPOINTED")
)
STEP = rb"""
extern "C" __global__ void step(unsigned *words, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) words[i] = words[i] * 1664525u + 1013904223u + i;
}
__device__ unsigned steps = 3;
extern "C" __global__ void tick() { steps += 1; }
extern "C" __global__ void wait_for(const volatile unsigned *flag) { while (*flag == 0) { } }
"""
WORDS = 1 << 16
BYTES = 4 * WORDS


def lock_args(timeout_ms: int) -> Any:
    args = cu.CUcheckpointLockArgs()
    args.timeoutMs = timeout_ms
    return args


def lock(pid: int, timeout_ms: int = 20000) -> None:
    call(cu.cuCheckpointProcessLock, pid, lock_args(timeout_ms))


def checkpoint(pid: int) -> None:
    call(cu.cuCheckpointProcessCheckpoint, pid, cu.CUcheckpointCheckpointArgs())


def restore(pid: int) -> None:
    call(cu.cuCheckpointProcessRestore, pid, cu.CUcheckpointRestoreArgs())


def unlock(pid: int) -> None:
    call(cu.cuCheckpointProcessUnlock, pid, cu.CUcheckpointUnlockArgs())


def state(pid: int) -> Any:
    return cu.CUprocessState(call(cu.cuCheckpointProcessGetState, pid))


class Work:
    """Memory of every kind, and kernels that change all of it step by step."""

    def __init__(self) -> None:
        call(cu.cuInit, 0)
        self.context = call(cu.cuDevicePrimaryCtxRetain, call(cu.cuDeviceGet, 0))
        call(cu.cuCtxSetCurrent, self.context)
        module = call(cu.cuModuleLoadData, compile_ptx(STEP))
        self.step_kernel = call(cu.cuModuleGetFunction, module, b"step")
        self.tick = call(cu.cuModuleGetFunction, module, b"tick")
        self.spin = call(cu.cuModuleGetFunction, module, b"wait_for")
        self.counter, _ = call(cu.cuModuleGetGlobal, module, b"steps")
        self.stream = call(cu.cuStreamCreate, 0)
        self.event = call(cu.cuEventCreate, 0)
        self.pinned = call(cu.cuMemHostAlloc, BYTES, 0)
        plain = int(call(cu.cuMemAlloc, BYTES))
        pooled = int(call(cu.cuMemAllocAsync, BYTES, self.stream))
        self.memory = {"plain": plain, "pooled": pooled, "mapped": self._map()}
        zero: Any = np.zeros(WORDS, dtype=np.uint32)
        for address in self.memory.values():
            call(cu.cuMemcpyHtoD, address, zero.ctypes.data, BYTES)

    def _map(self) -> int:
        """Two mappings of one handle; the address of the first."""
        prop = cu.CUmemAllocationProp()
        prop.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        prop.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        option = cu.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
        self.grain = int(call(cu.cuMemGetAllocationGranularity, prop, option))
        area = int(call(cu.cuMemAddressReserve, 3 * self.grain, 0, 0, 0))
        handle = call(cu.cuMemCreate, self.grain, prop, 0)
        desc = cu.CUmemAccessDesc()
        desc.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        desc.flags = cu.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        for number in range(2):
            call(cu.cuMemMap, area + number * self.grain, self.grain, 0, handle, 0)
            call(cu.cuMemSetAccess, area + number * self.grain, self.grain, [desc], 1)
        self.alias = area + self.grain
        return area

    def step(self) -> None:
        for address in self.memory.values():
            arguments = ((address, WORDS), (ctypes.c_void_p, ctypes.c_int))
            call(cu.cuLaunchKernel, self.step_kernel, WORDS // 256, 1, 1, 256, 1, 1, 0, self.stream, arguments, 0)
        call(cu.cuLaunchKernel, self.tick, 1, 1, 1, 1, 1, 1, 0, self.stream, 0, 0)
        call(cu.cuEventRecord, self.event, self.stream)
        call(cu.cuEventSynchronize, self.event)

    def look(self) -> dict[str, int]:
        """A sum of each memory, of the alias, of pinned memory, and the module's variable."""
        seen: dict[str, int] = {}
        data: Any = np.zeros(WORDS, dtype=np.uint32)
        for name, address in {**self.memory, "alias": self.alias}.items():
            call(cu.cuMemcpyDtoH, data.ctypes.data, address, BYTES)
            seen[name] = int(data.astype(np.uint64).sum())
        call(cu.cuMemcpyDtoHAsync, self.pinned, self.memory["plain"], BYTES, self.stream)
        call(cu.cuStreamSynchronize, self.stream)
        view = (ctypes.c_uint32 * WORDS).from_address(int(self.pinned))
        seen["pinned"] = sum(view)
        call(cu.cuMemcpyDtoH, data.ctypes.data, self.counter, 4)
        seen["steps"] = int(data[0])
        return seen


def expected(steps: int) -> dict[str, int]:
    words: Any = np.zeros(WORDS, dtype=np.uint32)
    index: Any = np.arange(WORDS, dtype=np.uint32)
    for _ in range(steps):
        words = words * np.uint32(1664525) + np.uint32(1013904223) + index
    total = int(words.astype(np.uint64).sum())
    return {**dict.fromkeys(("plain", "pooled", "mapped", "alias", "pinned"), total), "steps": 3 + steps}


def worker(channel: Channel) -> None:
    """Does what it is told; says when it is ready, and what it sees."""
    work = Work()
    channel.say("ready")
    while True:
        word = channel.hear()
        if word == "end":
            return
        if word == "step":
            work.step()
        if word == "free":
            for name in ("plain", "pooled"):
                call(cu.cuMemFree, work.memory.pop(name))
            return
        if word == "alive":  # no driver call
            channel.say("yes")
            continue
        if word == "spin":
            flag = np.frombuffer((ctypes.c_uint32 * 1).from_address(int(work.pinned)), dtype=np.uint32)
            flag[0] = 0
            arguments = ((int(work.pinned),), (ctypes.c_void_p,))
            call(cu.cuLaunchKernel, work.spin, 1, 1, 1, 1, 1, 1, 0, work.stream, arguments, 0)
            channel.say("spinning")
            assert channel.hear() == "release"
            flag[0] = 1
            call(cu.cuStreamSynchronize, work.stream)
        channel.say(work.look())


@pytest.fixture
def other(peer: Any, context: Any) -> Any:
    started = peer(worker)
    assert started.hear() == "ready"
    return started


def ask(other: Any, word: str) -> Any:
    other.say(word)
    return other.hear()


def used() -> int:
    """Bytes of device 0 that anybody uses."""
    free, total = call(cu.cuMemGetInfo)
    return int(total) - int(free)


def test_round_trip(other: Any) -> None:
    pid = other.pid
    assert ask(other, "step") == expected(1)
    assert state(pid) == RUNNING
    lock(pid)
    assert state(pid) == LOCKED
    checkpoint(pid)
    assert state(pid) == CHECKPOINTED
    restore(pid)
    assert state(pid) == LOCKED
    unlock(pid)
    assert state(pid) == RUNNING
    assert ask(other, "look") == expected(1)
    assert ask(other, "step") == expected(2)


@pytest.mark.differs("shim", reason="under gpuvirt a program is shown its own memory only")
def test_checkpointed_memory_is_free_for_others(other: Any) -> None:
    lock(other.pid)
    before = used()
    checkpoint(other.pid)
    assert used() < before
    restore(other.pid)
    assert used() == before


def test_calls_wait_while_locked(other: Any) -> None:
    lock(other.pid)
    assert ask(other, "alive") == "yes"  # its CPU threads run
    other.say("step")
    with pytest.raises(AssertionError, match="said nothing"):
        other.hear(0.3)
    checkpoint(other.pid)
    with pytest.raises(AssertionError, match="said nothing"):
        other.hear(0.2)
    restore(other.pid)
    unlock(other.pid)
    assert other.hear() == expected(1)


def test_many_rounds(other: Any) -> None:
    lock(other.pid)
    unlock(other.pid)  # cancelled
    for steps in range(1, 6):
        lock(other.pid)
        checkpoint(other.pid)
        restore(other.pid)
        unlock(other.pid)
        assert ask(other, "step") == expected(steps)


def test_memory_can_be_freed_after_restore(other: Any) -> None:
    lock(other.pid)
    checkpoint(other.pid)
    restore(other.pid)
    unlock(other.pid)
    other.say("free")
    assert other.wait() == 0


def test_a_running_kernel_is_waited_for(other: Any) -> None:
    assert ask(other, "spin") == "spinning"
    releasing = threading.Timer(0.3, other.say, ["release"])
    start = time.monotonic()
    releasing.start()
    lock(other.pid)
    assert time.monotonic() - start > 0.2
    releasing.join()
    unlock(other.pid)
    assert other.hear()["steps"] == 3


def test_lock_times_out_and_leaves_it_running(other: Any) -> None:
    assert ask(other, "spin") == "spinning"
    start = time.monotonic()
    assert result(cu.cuCheckpointProcessLock, other.pid, lock_args(200)) == "NOT_READY"
    assert 0.1 < time.monotonic() - start < 10
    assert state(other.pid) == RUNNING
    other.say("release")
    assert other.hear()["steps"] == 3
    assert ask(other, "step")["steps"] == 4


def test_wrong_states(other: Any) -> None:
    pid = other.pid
    checkpoint_args, restore_args = cu.CUcheckpointCheckpointArgs(), cu.CUcheckpointRestoreArgs()
    unlock_args = cu.CUcheckpointUnlockArgs()
    assert result(cu.cuCheckpointProcessCheckpoint, pid, checkpoint_args) == "ILLEGAL_STATE"
    assert result(cu.cuCheckpointProcessRestore, pid, restore_args) == "ILLEGAL_STATE"
    assert result(cu.cuCheckpointProcessUnlock, pid, unlock_args) == "ILLEGAL_STATE"
    lock(pid)
    assert result(cu.cuCheckpointProcessLock, pid, lock_args(1000)) == "ILLEGAL_STATE"
    assert result(cu.cuCheckpointProcessRestore, pid, restore_args) == "ILLEGAL_STATE"
    checkpoint(pid)
    assert result(cu.cuCheckpointProcessLock, pid, lock_args(1000)) == "ILLEGAL_STATE"
    assert result(cu.cuCheckpointProcessCheckpoint, pid, checkpoint_args) == "ILLEGAL_STATE"
    assert result(cu.cuCheckpointProcessUnlock, pid, unlock_args) == "ILLEGAL_STATE"
    restore(pid)
    unlock(pid)


def test_a_checkpointed_process_can_be_killed(other: Any) -> None:
    before = used()
    lock(other.pid)
    checkpoint(other.pid)
    other.close()
    assert used() <= before
    assert result(cu.cuCheckpointProcessGetState, other.pid) == "INVALID_VALUE"


def test_processes_without_the_driver(context: Any) -> None:
    assert result(cu.cuCheckpointProcessGetState, 0) == "INVALID_VALUE"
    assert result(cu.cuCheckpointProcessGetState, -1) == "INVALID_VALUE"
    assert result(cu.cuCheckpointProcessGetState, 1) in ("INVALID_VALUE", "NOT_INITIALIZED", "NOT_PERMITTED")


def test_arguments(context: Any) -> None:
    own = os.getpid()
    for name in ("Lock", "Checkpoint", "Restore", "Unlock"):
        reserved = (ctypes.c_uint64 * 8)(0, 0, 0, 0, 0, 0, 0, 1)
        assert native(f"cuCheckpointProcess{name}")(ctypes.c_int(own), ctypes.byref(reserved)) == "INVALID_VALUE"
    assert native("cuCheckpointProcessGetState")(ctypes.c_int(own), None) == "INVALID_VALUE"
    assert native("cuCheckpointProcessGetRestoreThreadId")(ctypes.c_int(own), None) == "INVALID_VALUE"
    thread = call(cu.cuCheckpointProcessGetRestoreThreadId, own)
    assert os.path.exists(f"/proc/{own}/task/{thread}")
    assert state(own) == RUNNING


def test_restore_needs_every_gpu(other: Any) -> None:
    lock(other.pid)
    checkpoint(other.pid)
    args = cu.CUcheckpointRestoreArgs()
    pair = cu.CUcheckpointGpuPair()
    pair.oldUuid = pair.newUuid = cu.CUuuid()  # no such GPU
    args.gpuPairs = [pair]
    args.gpuPairsCount = 1
    assert result(cu.cuCheckpointProcessRestore, other.pid, args) == "INVALID_VALUE"
    assert state(other.pid) == CHECKPOINTED
    pair.oldUuid = pair.newUuid = call(cu.cuDeviceGetUuid, 0)
    args.gpuPairs = [pair]
    call(cu.cuCheckpointProcessRestore, other.pid, args)
    unlock(other.pid)
    assert ask(other, "step") == expected(1)


def managed_worker(channel: Channel) -> None:
    work = Work()
    memory = call(cu.cuMemAllocManaged, BYTES, cu.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL)
    channel.say("ready")
    channel.hear()
    call(cu.cuMemFree, memory)
    channel.say(work.look()["steps"])


def test_managed_memory_is_refused(peer: Callable[..., Any], context: Any) -> None:
    other = peer(managed_worker)
    assert other.hear() == "ready"
    lock(other.pid)
    assert result(cu.cuCheckpointProcessCheckpoint, other.pid, cu.CUcheckpointCheckpointArgs()) == "NOT_SUPPORTED"
    if state(other.pid) == LOCKED:
        unlock(other.pid)
        assert ask(other, "on") == 3


def own_worker(channel: Channel) -> None:
    """Checkpoints itself, while another thread of it tries to work."""
    work = Work()
    done = threading.Event()

    def work_on() -> None:
        call(cu.cuCtxSetCurrent, work.context)
        work.step()
        done.set()

    own = os.getpid()
    work.step()
    lock(own)
    other = threading.Thread(target=work_on)
    other.start()
    time.sleep(0.2)
    assert not done.is_set()
    checkpoint(own)
    assert state(own) == CHECKPOINTED
    restore(own)
    assert not done.is_set()
    unlock(own)
    other.join(20)
    channel.say(work.look())


def test_of_the_own_process(peer: Callable[..., Any], context: Any) -> None:
    other = peer(own_worker)
    assert other.hear() == expected(2)
    assert other.wait() == 0


def locking_worker(channel: Channel, pid: int) -> None:
    """Begins to lock a process that cannot be locked, for ever."""
    call(cu.cuInit, 0)
    channel.say("locking")
    cu.cuCheckpointProcessLock(pid, lock_args(0))
    sys.exit(1)


def test_a_caller_that_dies_leaves_the_process_running(other: Any, peer: Callable[..., Any]) -> None:
    assert ask(other, "spin") == "spinning"
    locker = peer(locking_worker, other.pid)
    assert locker.hear() == "locking"
    time.sleep(0.3)
    locker.close()
    time.sleep(0.3)
    assert state(other.pid) == RUNNING
    other.say("release")
    assert other.hear()["steps"] == 3
    lock(other.pid)
    unlock(other.pid)
