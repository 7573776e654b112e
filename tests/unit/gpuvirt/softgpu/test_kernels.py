# SPDX-License-Identifier: Apache-2.0
"""CUDA C++ kernels through NVRTC and the translator, against numpy. One test a kernel, for both PTX dialects."""

from __future__ import annotations

import functools
import struct
import threading
from typing import Any

import numpy as np
import pytest
from launcher import Module
from nvrtc import ptx_of

DEFAULT = (80, 100)  # typed registers; untyped registers
COMPUTE = [
    pytest.param(compute, marks=[] if compute in DEFAULT else [pytest.mark.slow]) for compute in (75, 80, 90, 100, 120)
]
pytestmark = pytest.mark.parametrize("compute", COMPUTE)


@functools.cache
def _load(program: str, compute: int, *more: str) -> Module:
    return Module(ptx_of(program, compute, *more))


def basic(compute: int) -> Module:
    return _load("basic.cu", compute)


def device(compute: int) -> Module:
    return _load("device.cu", compute)


LIBRARY = pytest.mark.parametrize("more", [(), pytest.param(("-G",), marks=pytest.mark.slow, id="debug")])


def library(compute: int, more: tuple[str, ...]) -> Module:
    return _load("library.cu", compute, *more)


def floats(*shape: int, seed: int = 1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_saxpy(compute: int) -> None:
    x, y = floats(1000), floats(1000, seed=2)
    want = np.float32(2.5) * x + y
    assert basic(compute).launch("saxpy", 4, 256, np.int32(1000), np.float32(2.5), x, y) == 0
    np.testing.assert_allclose(y, want, rtol=1e-6, atol=1e-6)


def test_vadd_f64(compute: int) -> None:
    x, y = floats(300).astype(np.float64), floats(300, seed=2).astype(np.float64)
    z = np.zeros(300)
    assert basic(compute).launch("vadd", 3, 128, np.int32(300), x, y, z) == 0
    np.testing.assert_array_equal(z, x + y)


def test_reduction_in_shared_memory(compute: int) -> None:
    x, sums = floats(1000), np.zeros(4, np.float32)
    assert basic(compute).launch("reduce_shared", 4, 256, np.int32(1000), x, sums) == 0
    np.testing.assert_allclose(sums.sum(), x.sum(), rtol=1e-4)


def test_reduction_by_shuffles(compute: int) -> None:
    x, total = floats(1000), np.zeros(1, np.float32)
    assert basic(compute).launch("reduce_warp", 8, 128, np.int32(1000), x, total) == 0
    np.testing.assert_allclose(total[0], x.sum(), rtol=1e-4, atol=1e-4)


def test_votes(compute: int) -> None:
    x = np.random.default_rng(3).integers(-6, 7, 64).astype(np.int32)
    x[32:] = np.abs(x[32:]) % 5
    masks, some, every = np.zeros(2, np.uint32), np.zeros(64, np.int32), np.zeros(64, np.int32)
    assert basic(compute).launch("ballot", 1, 64, x, masks, some, every) == 0
    for warp in range(2):
        lanes = x[warp * 32 : warp * 32 + 32]
        assert masks[warp] == sum(1 << lane for lane in range(32) if lanes[lane] > 0)
        assert set(some[warp * 32 : warp * 32 + 32]) == {int((lanes > 5).any())}
        assert set(every[warp * 32 : warp * 32 + 32]) == {int((lanes > -5).all())}


def test_tiled_matmul(compute: int) -> None:
    a, b, c = floats(64, 64), floats(64, 64, seed=2), np.zeros((64, 64), np.float32)
    assert basic(compute).launch("matmul", (4, 4), (16, 16), np.int32(64), a, b, c) == 0
    np.testing.assert_allclose(c, a @ b, rtol=1e-4, atol=1e-4)


def test_transpose(compute: int) -> None:
    a, b = floats(32, 32), np.zeros((32, 32), np.float32)
    assert basic(compute).launch("transpose", (2, 2), (16, 16), np.int32(32), a, b) == 0
    np.testing.assert_array_equal(b, a.T)


def test_stencil_with_constant_memory(compute: int) -> None:
    a, b = floats(10, 12, 14), np.zeros((10, 12, 14), np.float32)
    assert basic(compute).launch("stencil", (2, 3, 3), (8, 4, 4), *map(np.int32, (14, 12, 10)), a, b) == 0
    c = a[1:-1, 1:-1, 1:-1]
    want = -6 * c + a[1:-1, 1:-1, :-2] + a[1:-1, 1:-1, 2:] + a[1:-1, :-2, 1:-1] + a[1:-1, 2:, 1:-1]
    want = want + a[:-2, 1:-1, 1:-1] + a[2:, 1:-1, 1:-1]
    np.testing.assert_allclose(b[1:-1, 1:-1, 1:-1], want, rtol=1e-4, atol=1e-4)
    assert not b[0].any()
    assert not b[:, 0].any()


def test_scan_in_dynamic_shared_memory(compute: int) -> None:
    a, b = np.arange(128, dtype=np.int32) % 7, np.zeros(128, np.int32)
    assert basic(compute).launch("scan", 1, 128, np.int32(128), a, b, shared=512) == 0
    np.testing.assert_array_equal(b, np.cumsum(a))


def test_mandelbrot(compute: int) -> None:
    out = np.zeros((20, 30), np.int32)
    assert basic(compute).launch("mandelbrot", (4, 3), (8, 8), *map(np.int32, (30, 20, 50)), out) == 0
    y, x = np.mgrid[0:20, 0:30]
    c = (3.0 * x / 30 - 2.0) + 1j * (2.0 * y / 20 - 1.0)
    z, want = np.zeros_like(c), np.zeros_like(out)
    for _ in range(50):
        going = np.abs(z) ** 2 < 4
        want += going
        z = np.where(going, z * z + c, z)
    assert (out != want).mean() < 0.01  # the border is chaotic: last bits decide


def test_adam(compute: int) -> None:
    p, g = floats(100), floats(100, seed=2)
    m, v = floats(100, seed=3) * 0, np.abs(floats(100, seed=4))
    lr, b1, b2, eps = 0.01, 0.9, 0.999, 1e-8
    mi, vi = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    want = p - lr * (mi / (1 - b1**3)) / (np.sqrt(vi / (1 - b2**3)) + eps)
    scalars = [np.float32(s) for s in (lr, b1, b2, eps)]
    assert basic(compute).launch("adam", 1, 128, np.int32(100), p, g, m, v, *scalars, np.int32(3)) == 0
    np.testing.assert_allclose(p, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(m, mi, rtol=1e-4, atol=1e-6)


def test_softmax(compute: int) -> None:
    a, b = floats(3, 300), np.zeros((3, 300), np.float32)
    assert basic(compute).launch("softmax", 3, 128, np.int32(300), a, b) == 0
    e = np.exp(a - a.max(axis=1, keepdims=True))
    np.testing.assert_allclose(b, e / e.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6)


def test_struct_parameter(compute: int) -> None:
    out, tags = np.zeros(8), np.zeros(8, np.int32)
    point = struct.pack("<ddif", 1.5, 2.0, 40, 0.5)
    assert basic(compute).launch("struct_parameter", 1, 8, point, out, tags) == 0
    np.testing.assert_array_equal(out, 1.5 * np.arange(8) + 1.0)
    np.testing.assert_array_equal(tags, 40 + np.arange(8))


def test_linked_list(compute: int) -> None:
    nodes = np.zeros(5, dtype=[("next", "<u8"), ("value", "<i4"), ("pad", "<i4")])
    nodes["value"] = [1, 20, 300, 4000, 50000]
    nodes["next"][:-1] = nodes.ctypes.data + 16 * np.arange(1, 5)
    out = np.zeros(1, np.int32)
    assert basic(compute).launch("list_sum", 1, 1, nodes, out) == 0
    assert out[0] == 54321


def test_vector_types(compute: int) -> None:
    a, b = floats(50, 4), np.zeros((50, 4), np.float32)
    p, q = np.arange(100, dtype=np.int32).reshape(50, 2), np.zeros((50, 2), np.int32)
    c = np.arange(200, dtype=np.uint8).reshape(50, 4)
    want = c[:, ::-1].copy()
    assert basic(compute).launch("vectors", 1, 64, np.int32(50), a, b, p, q, c) == 0
    np.testing.assert_array_equal(b, np.stack([a[:, 3], a[:, 2] + 1, a[:, 1] * 2, a[:, 0] - 3], 1))
    np.testing.assert_array_equal(q, p[:, ::-1])
    np.testing.assert_array_equal(c, want)


def test_atomics(compute: int) -> None:
    x = np.random.default_rng(5).integers(-1000, 1000, 500).astype(np.int32)
    ints = np.array([0, 5000, -5000, -1, 0, 0, 0, 0, 0], np.int32)
    wrap, f, d = np.zeros(2, np.uint32), np.zeros(1, np.float32), np.zeros(1)
    u, counts = np.zeros(2, np.uint64), np.zeros(8, np.int32)
    assert device(compute).launch("atomics", 4, 128, np.int32(500), x, ints, wrap, f, d, u, counts) == 0
    want = [x.sum(), x.min(), x.max(), np.bitwise_and.reduce(x | 0xF0), np.bitwise_or.reduce(x & 0xFF)]
    want += [np.bitwise_xor.reduce(x), -x.sum(), 1000, 77]
    np.testing.assert_array_equal(ints, want)
    down = 0
    for _ in range(500):
        down = 6 if down == 0 or down > 6 else down - 1
    assert list(wrap) == [500 % 7, down]
    assert (f[0], d[0], u[0], u[1]) == (250.0, 125.0, 500 * 499 // 2, 499)
    np.testing.assert_array_equal(counts, np.bincount(x & 7, minlength=8))


def test_half_atomics(compute: int) -> None:
    h, b, s = np.zeros(2, np.float16), np.zeros(2, np.uint16), np.zeros(2, np.uint16)
    assert device(compute).launch("half_atomics", 2, 32, h, b, s) == 0
    assert list(h) == [64.0, 32.0]
    assert list(_from_bf16(b)) == ([64.0, 128.0] if compute >= 80 else [0, 0])
    assert list(s) == [64, 0]


def _bf16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def _from_bf16(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def test_halves(compute: int) -> None:
    a, b = floats(64).astype(np.float16), floats(64, seed=2).astype(np.float16)
    p, q = _bf16(floats(64, seed=3)), _bf16(floats(64, seed=4))
    total, fused, small = (np.zeros(64, np.float16) for _ in range(3))
    pair, r, least = np.zeros((64, 2), np.float16), np.zeros(64, np.uint16), np.zeros(64, np.uint16)
    assert device(compute).launch("halves", 1, 64, np.int32(64), a, b, total, fused, pair, small, p, q, r, least) == 0
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    np.testing.assert_array_equal(total, a + b)
    np.testing.assert_array_equal(fused, (a64 * b64 + a64).astype(np.float16))
    np.testing.assert_array_equal(pair, np.stack([a * b, b * b], 1))
    np.testing.assert_array_equal(small, np.minimum(a, b))
    if compute < 80:  # no bfloat16 there
        return
    x, y = _from_bf16(p), _from_bf16(q)
    np.testing.assert_array_equal(r, _bf16(x * y + x))
    np.testing.assert_array_equal(least, _bf16(np.maximum(x, y)))


def test_clocks_and_identity(compute: int) -> None:
    out = np.zeros((40, 4), np.int64)
    assert device(compute).launch("clocks", 1, 40, out) == 0
    assert (out[:, 0] >= 0).all()
    assert (out[:, 1] > 1_600_000_000 * 10**9).all()
    assert (out[:, 2] == 0).all()
    np.testing.assert_array_equal(out[:, 3], np.arange(40) % 32)


def test_printf(compute: int) -> None:
    module = device(compute)
    module.printed.clear()
    assert module.launch("say", 1, 3, np.int32(-7), np.float64(2.5)) == 0
    assert module.printed == [f"thread {n} of block: -7 2.500 z\n" for n in range(2)]


def test_functions_and_recursion(compute: int) -> None:
    a, b = np.array([12, 35, 17, 100], np.int32), np.array([18, 14, 5, 75], np.int32)
    g, p = np.zeros(4, np.int32), np.zeros(4, np.float32)
    assert device(compute).launch("functions", 1, 4, a, b, g, p) == 0
    np.testing.assert_array_equal(g, np.gcd(a, b))
    np.testing.assert_allclose(p, 1 + b * (a + 0.5 * b))


def test_function_pointers(compute: int) -> None:
    a, b, out = np.arange(6, dtype=np.int32) + 10, np.arange(6, dtype=np.int32), np.zeros(6, np.int32)
    assert device(compute).launch("pointers", 1, 6, a, b, out) == 0
    np.testing.assert_array_equal(out, [10, 10, 24, 16, 10, 75])


@pytest.mark.parametrize("pointer", [0, 8, 0x7FFFFFFFFFFF, 2**64 - 1])
def test_bad_function_pointer(compute: int, pointer: int) -> None:
    out = np.zeros(1, np.int32)
    assert device(compute).launch("bad_pointer", 1, 1, np.uint64(pointer), out) == 4
    assert out[0] == 0


def test_barrier_inside_function(compute: int) -> None:
    x, out = floats(64), np.zeros(64, np.float32)
    assert device(compute).launch("barrier_in_function", 1, 64, x, out) == 0
    np.testing.assert_allclose(out, np.full(64, 3 * x.sum()), rtol=1e-4, atol=1e-4)


def test_warp_exchange(compute: int) -> None:
    x = (np.arange(32) * 7 % 32).astype(np.int32)
    up, other, source, same, pred, mask = (np.zeros(32, np.int32) for _ in range(6))
    assert device(compute).launch("warps", 1, 32, x, up, other, source, same, pred, mask) == 0
    lane = np.arange(32)
    np.testing.assert_array_equal(up, np.where(lane >= 3, x[lane - 3], x))
    np.testing.assert_array_equal(other, x[lane ^ 5])
    np.testing.assert_array_equal(source, x[lane // 8 * 8 + 2])
    np.testing.assert_array_equal(
        same.view(np.uint32), [sum(1 << k for k in lane if x[k] & 3 == x[j] & 3) for j in lane]
    )
    assert not pred.any()
    np.testing.assert_array_equal(mask.view(np.uint32), np.where(lane % 2, 0xAAAAAAAA, 0))


def test_votes_and_barriers_after_exits(compute: int) -> None:
    out, counts = np.zeros(32, np.uint32), np.full(32, -1, np.int32)
    assert device(compute).launch("votes_after_exit", 1, 32, out, counts) == 0
    assert set(out[:20]) == {sum(1 << lane for lane in range(20) if lane % 3 == 0)}
    assert list(counts) == [7 * 4 + 2] * 20 + [-1] * 12


@pytest.mark.parametrize(("x", "result"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 0)])
def test_ends_of_a_block(compute: int, x: int, result: int) -> None:
    module = device(compute)
    module.asserts.clear()
    value = np.array([x], np.int32)
    assert module.launch("fails", 1, 64, value) == result
    assert value[0] == (100 if x == 0 else x)
    assert module.asserts == ([("x is not 2", "device.cu", 42, "fails")] if x == 2 else [])


def test_atomics_of_blocks_that_run_at_the_same_time(compute: int) -> None:
    module = device(compute)
    x = np.arange(4000, dtype=np.int32)
    ints, wrap, f, d = np.zeros(9, np.int32), np.zeros(2, np.uint32), np.zeros(1, np.float32), np.zeros(1)
    u, counts = np.zeros(2, np.uint64), np.zeros(8, np.int32)
    workers = [
        threading.Thread(
            target=module.launch, args=("atomics", 32, 128, np.int32(4000), x, ints, wrap, f, d, u, counts), daemon=True
        )
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (ints[0], ints[7], f[0], d[0]) == (4 * x.sum(), 4 * 8000, 8000.0, 4000.0)
    assert (int(wrap[0]), int(u[0]), list(counts)) == (16000 % 7, 4 * int(x.sum()), [2000] * 8)


@LIBRARY
def test_cooperative_groups(compute: int, more: tuple[str, ...]) -> None:
    x, sums, odd, counter = np.arange(32, dtype=np.int32) * 3, *(np.zeros(n, np.int32) for n in (32, 32, 1))
    assert library(compute, more).launch("groups", 1, 32, x, sums, odd, counter) == 0
    np.testing.assert_array_equal(sums, np.repeat(x.reshape(4, 8).sum(1), 8))
    assert counter[0] == 16
    assert sorted(odd[:16]) == list(range(1, 32, 2))


@LIBRARY
def test_device_heap_and_virtual_calls(compute: int, more: tuple[str, ...]) -> None:
    out = np.zeros(4, np.int32)
    assert library(compute, more).launch("heap", 1, 4, np.int32(10), out) == 0
    assert list(out) == [285] * 4
    for derived, factor in ((0, 1), (1, 3)):
        assert library(compute, more).launch("virtual_call", 1, 4, np.int32(derived), out) == 0
        assert list(out) == [factor * n for n in range(4)]


@LIBRARY
def test_jump_tables_and_local_arrays(compute: int, more: tuple[str, ...]) -> None:
    out, x = np.zeros(32, np.int32), np.arange(32, dtype=np.int32) * 3
    assert library(compute, more).launch("jump_table", 1, 8, out) == 0
    assert list(out[:8]) == [5, 9, 11, 77, 3, 1, 1000, -1]
    assert library(compute, more).launch("local_array", 1, 32, x, out) == 0
    np.testing.assert_array_equal(out, x[x % 20] * (x % 20))
