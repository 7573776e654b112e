# SPDX-License-Identifier: Apache-2.0
"""The kernels of the example programs, as PTX on the CPU, against numpy. Needs NVRTC and a C compiler, no driver."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TESTS = Path(__file__).resolve().parents[2]
PROGRAMS = TESTS.parent / "benchmarks" / "programs"
SUPPORT = TESTS / "unit" / "gpuvirt" / "softgpu"
if str(SUPPORT) not in sys.path:
    sys.path.append(str(SUPPORT))

launcher = importlib.import_module("launcher")
nvrtc = importlib.import_module("nvrtc")

Array = np.ndarray[Any, Any]
F, I32, U32, U64 = np.float32, np.int32, np.uint32, np.uint64
BATCH, CLASSES = 96, 16


@pytest.fixture(scope="module")
def train() -> Any:
    """train_mlp.cu."""
    return launcher.Module(nvrtc.ptx_of(str(PROGRAMS / "train_mlp.cu"), 80))


@pytest.fixture(scope="module")
def heat() -> Any:
    """heat.cu."""
    return launcher.Module(nvrtc.ptx_of(str(PROGRAMS / "heat.cu"), 80))


@pytest.fixture
def random() -> np.random.Generator:
    """Seeded."""
    return np.random.default_rng(7)


def normal(random: np.random.Generator, *shape: int) -> Array:
    """Random floats."""
    return random.standard_normal(shape, dtype=F)


@pytest.mark.parametrize("kind", ["nn", "nt", "tn"])
@pytest.mark.parametrize("sizes", [(64, 64, 64), (70, 33, 50), (1, 1, 1), (130, 16, 65)])
def test_matmul(train: Any, random: np.random.Generator, kind: str, sizes: tuple[int, int, int]) -> None:
    m, n, k = sizes
    a, b, c = normal(random, m, k), normal(random, k, n), np.full((m, n), np.nan, F)
    left = np.ascontiguousarray(a.T) if kind[0] == "t" else a
    right = np.ascontiguousarray(b.T) if kind[1] == "t" else b
    grid = (-(-n // 64), -(-m // 64))
    assert train.launch(f"matmul_{kind}", grid, 256, left, right, c, I32(m), I32(n), I32(k)) == 0
    np.testing.assert_allclose(c, a @ b, atol=1e-4 * k**0.5)


def test_softmax_loss(train: Any, random: np.random.Generator) -> None:
    scores, labels = normal(random, BATCH, CLASSES) * 20, random.integers(0, CLASSES, BATCH, dtype=I32)
    gradient, loss, hit = np.zeros_like(scores), np.zeros(BATCH, F), np.zeros(BATCH, F)
    assert train.launch("softmax_loss", 1, 256, scores, labels, gradient, loss, hit, I32(BATCH), I32(CLASSES)) == 0
    exact = scores.astype(np.float64)
    weights = np.exp(exact - exact.max(1, keepdims=True))
    chance = weights / weights.sum(1, keepdims=True)
    rows = np.arange(BATCH)
    np.testing.assert_allclose(loss, -np.log(chance[rows, labels]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, (chance - np.eye(CLASSES)[labels]) / BATCH, atol=1e-6)
    assert (hit == (scores.argmax(1) == labels)).all()


def test_bias_relu_and_its_gradient(train: Any, random: np.random.Generator) -> None:
    before, bias, above = normal(random, BATCH, 40), normal(random, 40), normal(random, BATCH, 40)
    relu, linear, gradient = before.copy(), before.copy(), above.copy()
    blocks = -(-before.size // 256)
    assert train.launch("add_bias", blocks, 256, relu, bias, I32(BATCH), I32(40), I32(1)) == 0
    assert train.launch("add_bias", blocks, 256, linear, bias, I32(BATCH), I32(40), I32(0)) == 0
    assert train.launch("relu_backward", blocks, 256, gradient, relu, I32(before.size)) == 0
    np.testing.assert_array_equal(linear, before + bias)
    np.testing.assert_array_equal(relu, np.maximum(before + bias, 0))
    np.testing.assert_array_equal(gradient, np.where(relu > 0, above, 0))


def test_column_sum(train: Any, random: np.random.Generator) -> None:
    values, sums = normal(random, 700, 5), np.zeros(5, F)
    assert train.launch("column_sum", 5, 256, values, sums, I32(700), I32(5), F(0.5)) == 0
    np.testing.assert_allclose(sums, values.sum(0, dtype=np.float64) * 0.5, atol=1e-4)


def test_adam(train: Any, random: np.random.Generator) -> None:
    weights, gradient, mean, square = (normal(random, 1000) for _ in range(4))
    square = np.abs(square)
    m, s = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
    expected = weights - 0.01 * (m * 2) / (np.sqrt(s * 3) + 1e-8)
    assert train.launch("adam", 4, 256, weights, gradient, mean, square, I32(1000), F(0.01), F(2), F(3)) == 0
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    np.testing.assert_allclose(mean, m, atol=1e-6)
    np.testing.assert_allclose(square, s, atol=1e-6)


def test_samples_have_classes_that_can_be_told_apart(train: Any) -> None:
    count, features = 2048, 256
    samples, labels = np.zeros((count, features), F), np.full(count, -1, I32)
    work = (U64(count), U32(features), U32(CLASSES), F(2.0), U64(5))
    assert train.launch("make_samples", count * features // 4 // 256, 256, samples, labels, *work) == 0
    assert set(labels) == set(range(CLASSES))
    centres = np.stack([samples[labels == label].mean(0) for label in range(CLASSES)])
    guess = ((samples[:, None, :] - centres) ** 2).sum(2).argmin(1)
    assert (guess == labels).mean() > 0.95
    spread = samples - centres[labels]
    assert abs(spread.std() - 2.0 / 3**0.5) < 0.05  # uniform noise in [-2, 2)


def test_heat_steps_slab_by_slab(heat: Any) -> None:
    nx, nz, depth = 40, 21, 8
    now, k, after = (np.zeros((nz, nx, nx), F) for _ in range(3))
    size = (I32(nx), I32(nx), I32(nz))
    grid = (-(-nx // 32), nx // 8)
    assert heat.launch("prepare", (*grid, nz), (32, 8), now, k, *size, I32(0), I32(4), U32(3)) == 0
    assert 0 < (now > 0).mean() < 0.9
    assert set(np.unique(now)) == {0.0, 100.0}
    assert k.min() >= 0.04
    assert k.max() <= 1 / 6  # explicit steps are stable
    for z0 in range(0, nz, 10):
        planes = (I32(z0), I32(min(z0 + 10, nz)), I32(depth))
        assert heat.launch("step", (*grid, 2), (32, 8), now, k, after, *size, *planes) == 0
    expected = now.copy()
    around = now[:-2, 1:-1, 1:-1] + now[2:, 1:-1, 1:-1] + now[1:-1, :-2, 1:-1] + now[1:-1, 2:, 1:-1]
    around = around + now[1:-1, 1:-1, :-2] + now[1:-1, 1:-1, 2:]
    inner = (slice(1, -1),) * 3
    expected[inner] = now[inner] + k[inner] * (around - 6 * now[inner])
    np.testing.assert_allclose(after, expected, atol=1e-3)


def test_plane_sum(heat: Any, random: np.random.Generator) -> None:
    field, sums = normal(random, 3, 1000), np.zeros(3, F)
    assert heat.launch("plane_sum", 3, 256, field, sums, I32(1000)) == 0
    np.testing.assert_allclose(sums, field.sum(1, dtype=np.float64), atol=1e-3)
