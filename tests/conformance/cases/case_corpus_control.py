# SPDX-License-Identifier: Apache-2.0
"""The corpus again: memory, control, threads that wait for each other, cooperative grids."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

from support.corpus import Corpus
from support.driver_calls import call, result

CORPUS = ("memory.cu", "control.cu")


def numbers(count: int, seed: int = 1, low: int = -1000, high: int = 1000) -> Any:
    return np.random.default_rng(seed).integers(low, high, count).astype(np.int32)


def test_accesses(corpus: Corpus) -> None:
    given, out, small = numbers(4 * 32).reshape(32, 4), np.zeros((32, 4), np.int32), np.zeros((32, 4), np.uint8)
    pairs = given.ravel()[:64].reshape(32, 2)
    corpus.run("accesses", 1, 32, given, out, small)
    np.testing.assert_array_equal(out[:, 0], 2 * given[:, 0])
    np.testing.assert_array_equal(out[:, 1], 0 * given[:, 1])
    np.testing.assert_array_equal(out[:, 2], pairs[:, 1])
    np.testing.assert_array_equal(out[:, 3], pairs[:, 0])
    np.testing.assert_array_equal(small, given.ravel()[:32].view(np.uint8).reshape(32, 4)[:, ::-1])


def test_state_spaces(corpus: Corpus) -> None:
    given, out = numbers(32, low=0), np.zeros(7, np.int32)
    corpus.run("spaces", 1, 32, given, out, np.array([6, 7], np.int32).tobytes(), shared=1024)
    table = [2, 3, 5, 7]
    want = [15, 0, given[3], given[5], given[given[0] & 7] * (given[0] & 7), table[given[1] & 3] + 11 + 42, 1024]
    assert out.tolist() == want


def test_asynchronous_copies(corpus: Corpus) -> None:
    given, out = numbers(4 * 64), np.zeros(128, np.int32)
    corpus.run("copies", 1, 64, given, out, shared=5 * 64 * 4)
    np.testing.assert_array_equal(out[:64], given[255 - np.arange(64)])
    np.testing.assert_array_equal(out[64:], np.where(np.arange(64) & 1, 0, given[:64]))


def test_barrier_objects(corpus: Corpus) -> None:
    given, out = numbers(64), np.zeros(4 * 32 + 64, np.int32)
    corpus.run("barrier_objects", 1, 64, given, out)
    for turn in range(4):
        np.testing.assert_array_equal(out[32 * turn : 32 * turn + 32], given[31 - np.arange(32)] + turn)
    np.testing.assert_array_equal(out[128:], given[63 - np.arange(64)])


def test_calls(corpus: Corpus) -> None:
    given, out = numbers(64), np.zeros((5, 64), np.int32)
    corpus.run("calls", 1, 64, given, out)
    t = np.arange(64)
    np.testing.assert_array_equal(out[0], np.where(t & 1, given * 3, given + 1))
    np.testing.assert_array_equal(out[1], np.array([0, 1, 1, 2, 3, 5, 8, 13, 21, 34])[t % 10])
    np.testing.assert_array_equal(out[2], given[(t + 2) % 64])
    np.testing.assert_array_equal(out[3], np.where(given & 1, 7 * t, 7))
    np.testing.assert_array_equal(out[4], (given & 7) + t)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_functions_that_wait_by_pointer(corpus: Corpus, k: int) -> None:
    x, out = numbers(64), np.zeros((3, 64), np.int32)
    corpus.run("meetings", 1, 64, x, out, np.array([k], np.int32).tobytes())
    odd = [(x[:32] & 1).sum(), (x[32:] & 1).sum()]
    called = [x + 1, np.roll(x, -1), np.repeat(odd, 32)][k]
    np.testing.assert_array_equal(out[0], called)
    np.testing.assert_array_equal(out[1], 2 * called)
    np.testing.assert_array_equal(out[2], [x, np.full(64, (x & 1).sum()), 5 * x][k])


def test_switches(corpus: Corpus) -> None:
    given, out = numbers(128), numbers(128, seed=2)
    before = out.copy()
    corpus.run("switches", 1, 128, given, out)
    for v, old, got in zip(given.tolist(), before.tolist(), out.tolist(), strict=True):
        cases = [v * 3, v ^ 0x55, old + 1, v + 1, v >> 2, -v, int(np.fmod(v, 7)), 1 << (v & 15)]
        assert got == cases[v & 7]


def test_barriers(corpus: Corpus) -> None:
    given, out = numbers(128), np.zeros((4, 128), np.int32)
    corpus.run("barriers", 1, 128, given, out)
    assert set(out[0]) == {(given & 1).sum()}
    assert set(out[1]) == {int((given >= 0).all()) + 2 * int((given == 5).any())}
    # The producers add the lowest bit of each other's value, in an order that is open: look at what must hold.
    first = out[2][:64]
    assert set(first - given[:64]) <= {0, 1}
    np.testing.assert_array_equal(out[2][64:], first[::-1])
    t = np.arange(128)
    np.testing.assert_array_equal(out[3], np.where(t % 3 == 0, 0, out[2][(t * 5) & 127]))


def test_threads_of_a_block_wait_for_each_other(corpus: Corpus) -> None:
    given, out = numbers(64, low=0, high=2), np.zeros(1, np.int32)
    corpus.run("handover", 1, 64, given, out)
    want = 0
    for bit in given[::-1].tolist():
        want = (want * 2 + bit) & 0xFFFFFFFF
    assert int(out[0]) & 0xFFFFFFFF == want


def test_clocks(corpus: Corpus) -> None:
    out = np.zeros(3, np.int64)
    corpus.run("clocks", 1, 1, np.zeros(1, np.int32), out)
    assert out[0] > 0
    assert out[1] == 1
    assert abs(out[2] - time.time()) < 3600


def test_cooperative_grid(corpus: Corpus) -> None:
    n = 2 * 64
    given, out = numbers(n), np.zeros(2 * n + 1, np.int32)
    corpus.run("grid", 2, 64, given, out, together=True)
    want = given
    for turn in range(5):
        want = (np.roll(want, -64) if turn else want) + 1
    np.testing.assert_array_equal(out[:n], want)
    assert out[2 * n] == 21


def test_cooperative_grid_that_does_not_fit(corpus: Corpus) -> None:
    function = corpus.function("grid")
    per_sm = call(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor, function, 64, 0)
    attribute = cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
    most = per_sm * call(cu.cuDeviceGetAttribute, attribute, call(cu.cuCtxGetDevice))
    out = call(cu.cuMemAlloc, 4 * (2 * 64 * most + 1))
    arguments = np.array([out, out], np.uint64)
    pointers = np.array([arguments[k:].ctypes.data for k in range(2)], np.uint64)
    shape = (1, 1, 64, 1, 1, 0, 0, pointers.ctypes.data)
    launched = result(cu.cuLaunchCooperativeKernel, function, most + 1, *shape)
    assert launched == "COOPERATIVE_LAUNCH_TOO_LARGE"
    call(cu.cuLaunchCooperativeKernel, function, min(most, 64), *shape)
    call(cu.cuCtxSynchronize)
    call(cu.cuMemFree, out)
