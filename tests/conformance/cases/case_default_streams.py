# SPDX-License-Identifier: Apache-2.0
"""The legacy stream, the per-thread default streams, and what orders what. Order is shown by data, not by time."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

from cuda.bindings import driver as cu

from support.driver_calls import call, native, result
from support.gate import Gate

NON_BLOCKING = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value
LEGACY, PER_THREAD = cu.CUstream(cu.CU_STREAM_LEGACY), cu.CUstream(cu.CU_STREAM_PER_THREAD)


def test_legacy_waits_for_blocking_streams_and_they_for_it(gate: Gate) -> None:
    stream = call(cu.cuStreamCreate, 0)
    gate.wait(stream)
    gate.store(LEGACY, 2, 1)
    gate.store(stream, 2, 2)
    gate.store(None, 2, 3)  # NULL is the legacy stream for plain symbols
    assert result(cu.cuStreamQuery, LEGACY) == "NOT_READY"
    assert gate.word(2).value == 0
    gate.open()
    call(cu.cuStreamSynchronize, LEGACY)
    assert gate.word(2).value == 3


def test_legacy_does_not_wait_for_non_blocking_streams(gate: Gate) -> None:
    stream = call(cu.cuStreamCreate, NON_BLOCKING)
    gate.wait(stream)
    gate.store(LEGACY, 2, 7)
    call(cu.cuStreamSynchronize, LEGACY)
    assert gate.word(2).value == 7
    assert result(cu.cuStreamQuery, stream) == "NOT_READY"


def test_non_blocking_streams_do_not_wait_for_legacy(gate: Gate) -> None:
    stream = call(cu.cuStreamCreate, NON_BLOCKING)
    gate.wait(LEGACY)
    gate.store(stream, 2, 7)
    call(cu.cuStreamSynchronize, stream)
    assert gate.word(2).value == 7
    assert result(cu.cuStreamQuery, LEGACY) == "NOT_READY"


def test_blocking_streams_do_not_wait_for_each_other(gate: Gate) -> None:
    one, two = call(cu.cuStreamCreate, 0), call(cu.cuStreamCreate, 0)
    gate.wait(one)
    gate.store(two, 2, 7)
    call(cu.cuStreamSynchronize, two)
    assert gate.word(2).value == 7


def test_a_copy_without_stream_is_on_the_legacy_stream(gate: Gate) -> None:
    stream = call(cu.cuStreamCreate, 0)
    value = ctypes.c_uint32(9)
    at = call(cu.cuMemAlloc, 4)
    gate.store(stream, 2, 5)
    call(cu.cuMemcpyHtoD, at, ctypes.addressof(value), 4)
    assert gate.word(2).value == 5  # the copy returned: all that was in the blocking stream is done
    call(cu.cuMemFree, at)


def test_per_thread_stream_is_ordered_with_legacy(gate: Gate) -> None:
    gate.wait(PER_THREAD)
    gate.store(LEGACY, 2, 1)
    gate.store(PER_THREAD, 2, 2)
    assert result(cu.cuStreamQuery, LEGACY) == "NOT_READY"
    gate.open()
    call(cu.cuStreamSynchronize, PER_THREAD)
    assert gate.word(2).value == 2


def test_each_thread_has_its_own(context: Any, gate: Gate) -> None:
    gate.wait(PER_THREAD)
    ids = [int(call(cu.cuStreamGetId, PER_THREAD))]
    failures: list[str] = []

    def other() -> None:
        try:
            call(cu.cuCtxSetCurrent, context)
            gate.store(PER_THREAD, 2, 7)
            call(cu.cuStreamSynchronize, PER_THREAD)
            ids.append(int(call(cu.cuStreamGetId, PER_THREAD)))
        except AssertionError as error:
            failures.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert not failures
    assert gate.word(2).value == 7
    assert result(cu.cuStreamQuery, PER_THREAD) == "NOT_READY"
    assert ids[0] != ids[1]
    assert int(call(cu.cuStreamGetId, LEGACY)) not in ids


def test_null_stream_of_the_per_thread_symbols(gate: Gate) -> None:
    gate.wait(PER_THREAD)
    assert native("cuStreamQuery_ptsz")(None) == "NOT_READY"
    assert native("cuStreamQuery")(ctypes.c_void_p(cu.CU_STREAM_PER_THREAD)) == "NOT_READY"
    value = ctypes.c_uint32(3)
    at = int(call(cu.cuMemAlloc, 4))
    gate.open()
    assert native("cuMemcpyHtoD_v2_ptds")(at, ctypes.c_void_p(ctypes.addressof(value)), 4) == "SUCCESS"
    back = ctypes.c_uint32(0)
    assert native("cuMemcpyDtoH_v2_ptds")(ctypes.c_void_p(ctypes.addressof(back)), at, 4) == "SUCCESS"
    assert back.value == 3
    assert native("cuStreamSynchronize_ptsz")(None) == "SUCCESS"
    assert result(cu.cuStreamQuery, PER_THREAD) == "SUCCESS"


def test_default_streams_cannot_be_destroyed(context: Any) -> None:
    for stream in (None, LEGACY, PER_THREAD):
        assert result(cu.cuStreamDestroy, stream) in ("INVALID_HANDLE", "INVALID_VALUE", "NOT_PERMITTED")


def test_default_streams_answer_questions(context: Any) -> None:
    for stream in (None, LEGACY, PER_THREAD):
        assert int(call(cu.cuStreamGetCtx, stream)) == int(context)
        assert call(cu.cuStreamGetFlags, stream) == 0
        assert call(cu.cuStreamGetPriority, stream) == 0
        assert int(call(cu.cuStreamGetDevice, stream)) == 0


def test_priorities_are_clamped(context: Any) -> None:
    least, greatest = call(cu.cuCtxGetStreamPriorityRange)
    for asked, got in ((least + 5, least), (greatest - 5, greatest), (greatest, greatest)):
        stream = call(cu.cuStreamCreateWithPriority, NON_BLOCKING, asked)
        assert call(cu.cuStreamGetPriority, stream) == got
        call(cu.cuStreamDestroy, stream)


def test_wrong_streams(context: Any) -> None:
    assert result(cu.cuStreamCreate, 0x10) == "INVALID_VALUE"
    assert result(cu.cuStreamCreateWithPriority, 0x10, 0) == "INVALID_VALUE"
    assert native("cuStreamCreate")(None, ctypes.c_uint(0)) == "INVALID_VALUE"
    stream = call(cu.cuStreamCreate, 0)
    for function in ("cuStreamGetFlags", "cuStreamGetPriority", "cuStreamGetId", "cuStreamGetDevice"):
        assert native(function)(ctypes.c_void_p(int(stream)), None) == "INVALID_VALUE"


def test_destroyed_stream_finishes_its_work(gate: Gate) -> None:
    stream = call(cu.cuStreamCreate, NON_BLOCKING)
    gate.wait(stream)
    gate.store(stream, 2, 4)
    call(cu.cuStreamDestroy, stream)  # returns although work is pending
    gate.open()
    call(cu.cuCtxSynchronize)
    assert gate.word(2).value == 4


def test_attributes_of_a_stream(context: Any) -> None:
    which = cu.CUstreamAttrID.CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY
    one, two = call(cu.cuStreamCreate, 0), call(cu.cuStreamCreate, 0)
    value = cu.CUstreamAttrValue()
    value.syncPolicy = cu.CUsynchronizationPolicy.CU_SYNC_POLICY_YIELD
    call(cu.cuStreamSetAttribute, one, which, value)
    assert call(cu.cuStreamGetAttribute, one, which).syncPolicy == value.syncPolicy
    assert call(cu.cuStreamGetAttribute, two, which).syncPolicy != value.syncPolicy
    call(cu.cuStreamCopyAttributes, two, one)
    assert call(cu.cuStreamGetAttribute, two, which).syncPolicy == value.syncPolicy
