# SPDX-License-Identifier: Apache-2.0
"""PTX that numba-cuda writes (its own dialect: .weak functions, st.param, libdevice), against numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from launcher import Module

cuda = pytest.importorskip("numba.cuda")
numba = pytest.importorskip("numba")


def compiled(function: Any, signature: str, cc: tuple[int, int]) -> Module:
    ptx, _ = cuda.compile(function, signature, device=False, abi="numba", cc=cc, output="ptx")
    return Module(ptx if isinstance(ptx, str) else ptx.decode())


def only(module: Module) -> str:
    """The name of the module's kernel, which numba mangles."""
    (name,) = module.kernels
    return name


def array(a: np.ndarray[Any, Any]) -> list[Any]:
    """An array as numba passes it: meminfo, parent, items, item size, data, shape, strides."""
    fields = [0, 0, a.size, a.itemsize, a.ctypes.data, *a.shape, *a.strides]
    return [np.int64(field) for field in fields]


CC = pytest.mark.parametrize("cc", [(8, 0), (10, 0)])


@CC
def test_math_functions(cc: tuple[int, int]) -> None:
    def kernel(x, y):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        if i < x.size:
            v = x[i]
            y[i] = math.sin(v) + math.exp(v) + math.log(v) + math.tanh(v) + math.erf(v) + v**1.5 + math.lgamma(v)

    module = compiled(kernel, "void(float64[::1], float64[::1])", cc)
    x, y = np.linspace(0.1, 9, 50), np.zeros(50)
    assert module.launch(only(module), 2, 32, *array(x), *array(y)) == 0
    more = np.array([math.erf(v) + math.lgamma(v) for v in x])
    np.testing.assert_allclose(y, np.sin(x) + np.exp(x) + np.log(x) + np.tanh(x) + x**1.5 + more, rtol=1e-12)


@CC
def test_float32_and_integers(cc: tuple[int, int]) -> None:
    def kernel(x, n, y, m):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        if i < x.size:
            y[i] = math.atan2(x[i], np.float32(0.3)) + math.cos(x[i]) * math.sqrt(abs(x[i])) + round(x[i])
            m[i] = (n[i] // 7) * 3 + n[i] % 5 + (n[i] >> 2) + cuda.popc(n[i]) + cuda.clz(n[i])

    module = compiled(kernel, "void(float32[::1], int32[::1], float32[::1], int64[::1])", cc)
    x = np.linspace(-3, 3, 40).astype(np.float32)
    n = np.random.default_rng(1).integers(-(2**31), 2**31, 40).astype(np.int32)
    y, m = np.zeros(40, np.float32), np.zeros(40, np.int64)
    assert module.launch(only(module), 1, 64, *array(x), *array(n), *array(y), *array(m)) == 0
    np.testing.assert_allclose(y, np.arctan2(x, 0.3) + np.cos(x) * np.sqrt(abs(x)) + np.round(x), rtol=1e-5, atol=1e-5)
    n64 = n.astype(np.int64)
    ones = np.array([bin(v & 0xFFFFFFFF).count("1") for v in n64])
    zeros = np.array([32 - (v & 0xFFFFFFFF).bit_length() for v in n64.tolist()])
    np.testing.assert_array_equal(m, (n64 // 7) * 3 + n64 % 5 + (n64 >> 2) + ones + zeros)


@CC
def test_shared_memory_and_atomics(cc: tuple[int, int]) -> None:
    def kernel(x, bins, total):  # type: ignore[no-untyped-def]
        local = cuda.shared.array(16, numba.int32)
        t = cuda.threadIdx.x
        if t < 16:
            local[t] = 0
        cuda.syncthreads()
        i = cuda.grid(1)
        if i < x.size:
            cuda.atomic.add(local, x[i] & 15, 1)
            cuda.atomic.max(total, 0, float(x[i]))
            cuda.atomic.add(total, 1, 0.5)
        cuda.syncthreads()
        if t < 16:
            cuda.atomic.add(bins, t, local[t])

    module = compiled(kernel, "void(int32[::1], int32[::1], float64[::1])", cc)
    x = np.random.default_rng(1).integers(0, 1000, 300).astype(np.int32)
    bins, total = np.zeros(16, np.int32), np.zeros(2)
    assert module.launch(only(module), 3, 128, *array(x), *array(bins), *array(total)) == 0
    np.testing.assert_array_equal(bins, np.bincount(x & 15, minlength=16))
    assert list(total) == [x.max(), 150.0]


@CC
def test_warps_local_arrays_and_complex(cc: tuple[int, int]) -> None:
    def kernel(x, y, z):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        local = cuda.local.array(8, numba.float64)
        for k in range(8):
            local[k] = x[i] * k
        s = 0.0
        for k in range(i % 8 + 1):
            s += local[k]
        for d in (16, 8, 4, 2, 1):
            s += cuda.shfl_xor_sync(0xFFFFFFFF, s, d)
        y[i] = s
        z[i] = z[i] * z[i] / (z[i] + 1)

    module = compiled(kernel, "void(float64[::1], float64[::1], complex128[::1])", cc)
    x, y = np.linspace(0, 1, 32), np.zeros(32)
    z = np.exp(1j * np.arange(32))
    want = z * z / (z + 1)
    assert module.launch(only(module), 1, 32, *array(x), *array(y), *array(z)) == 0
    k = np.arange(32) % 8
    np.testing.assert_allclose(y, np.full(32, (x * k * (k + 1) / 2).sum()), rtol=1e-12)
    np.testing.assert_allclose(z, want, rtol=1e-12)


@CC
def test_printing(cc: tuple[int, int]) -> None:
    def kernel(x):  # type: ignore[no-untyped-def]
        print("value", x[0], cuda.threadIdx.x)

    module = compiled(kernel, "void(int32[::1])", cc)
    assert module.launch(only(module), 1, 2, *array(np.array([5], np.int32))) == 0
    assert module.printed == ["value 5 0\n", "value 5 1\n"]
