# SPDX-License-Identifier: Apache-2.0
"""Contexts: primary and created, the stack of each thread, flags, limits, reset, destruction under others' feet."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, native, result

Flags = cu.CUctx_flags
Limit = cu.CUlimit


def in_thread(function: Callable[[], Any]) -> Any:
    """What the function returns in a new thread, which has no context."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(function()))
    thread.start()
    thread.join()
    assert answers, "the thread failed"
    return answers[0]


def current() -> int:
    return int(call(cu.cuCtxGetCurrent))


@pytest.fixture
def other(context: Any) -> Iterator[Any]:
    """A created context that floats: alive and current to nobody."""
    made = call(cu.cuCtxCreate, None, 0, 0)
    call(cu.cuCtxPopCurrent)
    yield made
    if result(cu.cuCtxGetApiVersion, made) == "SUCCESS":
        call(cu.cuCtxDestroy, made)


def test_floating_context_is_pushed_elsewhere(context: Any, other: Any) -> None:
    assert current() == int(context)

    def use() -> list[str]:
        answers = [result(cu.cuCtxPushCurrent, other), result(cu.cuMemAlloc, 64), result(cu.cuCtxPopCurrent)]
        return [*answers, result(cu.cuCtxPopCurrent), result(cu.cuMemAlloc, 64)]

    assert in_thread(use) == ["SUCCESS", "SUCCESS", "SUCCESS", "INVALID_CONTEXT", "INVALID_CONTEXT"]


def test_the_same_context_many_times(context: Any, other: Any) -> None:
    for made in (other, other, context, other):
        call(cu.cuCtxPushCurrent, made)
    for made in (other, context, other, other):
        assert int(call(cu.cuCtxPopCurrent)) == int(made)
    assert current() == int(context)


def test_set_current_replaces_the_top(context: Any, other: Any) -> None:
    call(cu.cuCtxPushCurrent, context)
    call(cu.cuCtxSetCurrent, other)
    assert current() == int(other)
    assert int(call(cu.cuCtxPopCurrent)) == int(other)
    assert current() == int(context)


def test_set_current_of_nothing_pops(context: Any, other: Any) -> None:
    call(cu.cuCtxPushCurrent, other)
    call(cu.cuCtxSetCurrent, None)
    assert current() == int(context)
    call(cu.cuCtxPushCurrent, other)
    call(cu.cuCtxPopCurrent)


def test_destroyed_while_current_elsewhere(context: Any, other: Any) -> None:
    entered, destroyed = threading.Event(), threading.Event()
    answers: list[str] = []

    def hold() -> None:
        call(cu.cuCtxPushCurrent, other)
        entered.set()
        destroyed.wait(30)
        answers.append(result(cu.cuMemAlloc, 64))
        answers.append(result(cu.cuCtxSynchronize))

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(30)
    call(cu.cuCtxDestroy, other)
    destroyed.set()
    thread.join()
    assert answers == ["CONTEXT_IS_DESTROYED"] * 2
    assert current() == int(context)


def test_destroy_pops_only_its_own(context: Any, other: Any) -> None:
    call(cu.cuCtxPushCurrent, other)
    call(cu.cuCtxDestroy, other)
    assert current() == int(context)
    call(cu.cuMemFree, call(cu.cuMemAlloc, 64))


def test_wrong_contexts(context: Any) -> None:
    assert native("cuCtxDestroy_v2")(None) == "INVALID_CONTEXT"
    assert native("cuCtxPushCurrent_v2")(None) in ("INVALID_CONTEXT", "INVALID_VALUE")
    assert native("cuCtxGetCurrent")(None) == "INVALID_VALUE"
    assert native("cuCtxCreate_v2")(None, ctypes.c_uint(0), ctypes.c_int(0)) == "INVALID_VALUE"
    assert result(cu.cuCtxCreate, None, 0x8000, 0) == "INVALID_VALUE"
    assert result(cu.cuCtxCreate, None, 0, 99) == "INVALID_DEVICE"
    assert result(cu.cuDevicePrimaryCtxRetain, 99) == "INVALID_DEVICE"
    assert native("cuDevicePrimaryCtxRetain")(None, ctypes.c_int(0)) == "INVALID_VALUE"
    assert current() == int(context)


def test_only_one_scheduling_flag(context: Any) -> None:
    both = Flags.CU_CTX_SCHED_SPIN.value | Flags.CU_CTX_SCHED_YIELD.value
    assert result(cu.cuCtxCreate, None, both, 0) == "INVALID_VALUE"


def test_flags(context: Any) -> None:
    wanted = Flags.CU_CTX_SCHED_BLOCKING_SYNC.value | Flags.CU_CTX_MAP_HOST.value
    made = call(cu.cuCtxCreate, None, wanted, 0)
    assert call(cu.cuCtxGetFlags) & wanted == wanted
    call(cu.cuCtxSetFlags, Flags.CU_CTX_SCHED_YIELD.value)
    assert call(cu.cuCtxGetFlags) & Flags.CU_CTX_SCHED_MASK.value == Flags.CU_CTX_SCHED_YIELD.value
    assert result(cu.cuCtxSetFlags, 0x8000) == "INVALID_VALUE"
    assert native("cuCtxGetFlags")(None) == "INVALID_VALUE"
    call(cu.cuCtxDestroy, made)


def test_flags_of_the_primary_context(context: Any) -> None:
    call(cu.cuDevicePrimaryCtxSetFlags, 0, Flags.CU_CTX_SCHED_SPIN.value)
    flags, active = call(cu.cuDevicePrimaryCtxGetState, 0)
    assert flags & Flags.CU_CTX_SCHED_MASK.value == Flags.CU_CTX_SCHED_SPIN.value
    assert active == 1
    assert result(cu.cuDevicePrimaryCtxSetFlags, 0, 0x8000) == "INVALID_VALUE"
    call(cu.cuDevicePrimaryCtxSetFlags, 0, 0)


def test_questions_about_another_context(context: Any, other: Any) -> None:
    assert call(cu.cuCtxGetApiVersion, other) >= 3010
    assert call(cu.cuCtxGetApiVersion, None) >= 3010
    assert int(call(cu.cuCtxGetId, other)) != int(call(cu.cuCtxGetId, context))
    assert int(call(cu.cuCtxGetId, None)) == int(call(cu.cuCtxGetId, context))
    call(cu.cuCtxSetCurrent, None)
    assert result(cu.cuCtxGetApiVersion, None) == "INVALID_CONTEXT"
    assert result(cu.cuCtxGetFlags) == "INVALID_CONTEXT"
    assert result(cu.cuCtxSynchronize) == "INVALID_CONTEXT"
    assert result(cu.cuCtxGetLimit, Limit.CU_LIMIT_STACK_SIZE) == "INVALID_CONTEXT"
    assert result(cu.cuCtxGetStreamPriorityRange) == "INVALID_CONTEXT"


def test_limits(context: Any) -> None:
    call(cu.cuCtxSetLimit, Limit.CU_LIMIT_MALLOC_HEAP_SIZE, 16 << 20)
    assert call(cu.cuCtxGetLimit, Limit.CU_LIMIT_MALLOC_HEAP_SIZE) >= 16 << 20
    call(cu.cuCtxSetLimit, Limit.CU_LIMIT_PRINTF_FIFO_SIZE, 2 << 20)
    assert call(cu.cuCtxGetLimit, Limit.CU_LIMIT_PRINTF_FIFO_SIZE) >= 2 << 20
    value = ctypes.c_size_t()
    assert native("cuCtxGetLimit")(ctypes.byref(value), ctypes.c_int(99)) == "UNSUPPORTED_LIMIT"
    assert native("cuCtxSetLimit")(ctypes.c_int(99), 1) == "UNSUPPORTED_LIMIT"
    assert native("cuCtxGetLimit")(None, ctypes.c_int(0)) == "INVALID_VALUE"


def test_limits_are_of_the_context(context: Any, other: Any) -> None:
    call(cu.cuCtxSetLimit, Limit.CU_LIMIT_STACK_SIZE, 4096)
    call(cu.cuCtxPushCurrent, other)
    assert call(cu.cuCtxGetLimit, Limit.CU_LIMIT_STACK_SIZE) != 4096
    call(cu.cuCtxPopCurrent)
    assert call(cu.cuCtxGetLimit, Limit.CU_LIMIT_STACK_SIZE) == 4096


def test_usage_count(context: Any) -> None:
    made = call(cu.cuCtxCreate, None, 0, 0)
    assert int(call(cu.cuCtxAttach, 0)) == int(made)
    assert result(cu.cuCtxAttach, 1) == "INVALID_VALUE"
    call(cu.cuCtxDetach, made)
    assert current() == int(made)
    call(cu.cuCtxDetach, made)
    assert current() == int(context)


def test_cache_configuration_is_a_preference(context: Any) -> None:
    for preference in (cu.CUfunc_cache.CU_FUNC_CACHE_PREFER_L1, cu.CUfunc_cache.CU_FUNC_CACHE_PREFER_NONE):
        call(cu.cuCtxSetCacheConfig, preference)
        assert call(cu.cuCtxGetCacheConfig) in (preference, cu.CUfunc_cache.CU_FUNC_CACHE_PREFER_NONE)
    assert native("cuCtxSetCacheConfig")(ctypes.c_int(77)) == "INVALID_VALUE"
    assert native("cuCtxGetCacheConfig")(None) == "INVALID_VALUE"
    call(cu.cuCtxSetSharedMemConfig, cu.CUsharedconfig.CU_SHARED_MEM_CONFIG_DEFAULT_BANK_SIZE)
    assert call(cu.cuCtxGetSharedMemConfig) != cu.CUsharedconfig.CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE


def test_retain_and_release_are_counted(context: Any) -> None:
    call(cu.cuDevicePrimaryCtxRetain, 0)
    call(cu.cuDevicePrimaryCtxRelease, 0)
    pointer = call(cu.cuMemAlloc, 64)  # still alive
    call(cu.cuMemFree, pointer)
    assert result(cu.cuCtxDestroy, context) in ("INVALID_CONTEXT", "INVALID_VALUE")


def test_primary_context_of_another_device(two_devices: tuple[Any, Any]) -> None:
    _, second = two_devices
    assert result(cu.cuDevicePrimaryCtxRelease, second) == "INVALID_CONTEXT"
    assert call(cu.cuDevicePrimaryCtxGetState, second)[1] == 0
    made = call(cu.cuDevicePrimaryCtxRetain, second)
    call(cu.cuCtxPushCurrent, made)
    assert int(call(cu.cuCtxGetDevice)) == int(second)
    call(cu.cuMemFree, call(cu.cuMemAlloc, 64))
    assert int(call(cu.cuCtxPopCurrent)) == int(made)
    assert call(cu.cuDevicePrimaryCtxGetState, second)[1] == 1
    call(cu.cuDevicePrimaryCtxRelease, second)
    assert call(cu.cuDevicePrimaryCtxGetState, second)[1] == 0


def test_peer_access(two_devices: tuple[Any, Any]) -> None:
    first, second = (call(cu.cuCtxCreate, None, 0, device) for device in two_devices)
    if not call(cu.cuDeviceCanAccessPeer, two_devices[1], two_devices[0]):
        pytest.skip("these devices are no peers")
    assert result(cu.cuCtxEnablePeerAccess, first, 1) == "INVALID_VALUE"
    assert result(cu.cuCtxEnablePeerAccess, second, 0) in ("INVALID_CONTEXT", "INVALID_DEVICE")
    assert result(cu.cuCtxDisablePeerAccess, first) == "PEER_ACCESS_NOT_ENABLED"
    call(cu.cuCtxEnablePeerAccess, first, 0)
    assert result(cu.cuCtxEnablePeerAccess, first, 0) == "PEER_ACCESS_ALREADY_ENABLED"
    call(cu.cuCtxDisablePeerAccess, first)
    assert result(cu.cuCtxDisablePeerAccess, first) == "PEER_ACCESS_NOT_ENABLED"
    call(cu.cuCtxDestroy, second)
    call(cu.cuCtxDestroy, first)


def test_reset_takes_everything(context: Any, ptx: bytes) -> None:
    free, _ = call(cu.cuMemGetInfo)
    for _ in range(3):
        call(cu.cuMemAlloc, 8 << 20)
    call(cu.cuModuleLoadData, ptx)
    call(cu.cuDevicePrimaryCtxReset, 0)
    call(cu.cuCtxSetCurrent, context)
    assert call(cu.cuMemGetInfo)[0] >= free - (1 << 20)
