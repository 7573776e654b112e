# SPDX-License-Identifier: Apache-2.0
"""CUDA C++ of tests/conformance/corpus, compiled by NVRTC for every architecture, against numpy."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from support.corpus import Corpus

CORPUS = ("warp.cu", "atomics.cu", "numbers.cu")
LANES = np.arange(32)
MASK = (1 << 32) - 1


def numbers(count: int, seed: int = 1, low: int = -1000, high: int = 1000) -> Any:
    return np.random.default_rng(seed).integers(low, high, count).astype(np.int32)


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def test_shuffles(corpus: Corpus) -> None:
    v, out = numbers(32), np.zeros((7, 32), np.int32)
    corpus.run("shuffles", 1, 32, v, out)
    np.testing.assert_array_equal(out[0], v[LANES ^ 5])
    np.testing.assert_array_equal(out[1], v[np.where(LANES % 16 >= 2, LANES - 2, LANES)])
    np.testing.assert_array_equal(out[2], v[np.where(LANES % 8 < 5, LANES + 3, LANES)])
    np.testing.assert_array_equal(out[3], v[LANES * 7 % 32])
    np.testing.assert_array_equal(out[4], v[LANES ^ 1])
    np.testing.assert_array_equal(out[5], v[np.minimum(LANES + 1, 31)])
    np.testing.assert_array_equal(out[6], np.where(LANES & 1, v[LANES ^ 2], v[4]))


def test_votes(corpus: Corpus) -> None:
    v, out = numbers(32), np.zeros((10, 32), np.uint32)

    def mask(condition: Any) -> int:
        return sum(1 << int(lane) for lane in np.flatnonzero(condition))

    corpus.run("votes", 1, 32, v, out)
    assert set(out[0]) == {mask(v & 1)}
    assert set(out[1]) == {1 + 4 * int((v > -1000).all())}
    taken = v & 2 != 0
    for lane in LANES:
        # Which lanes run together is the hardware's choice: each answers for a part of its branch, itself included.
        assert out[2][lane] & ~np.uint32(mask(v & 4 if taken[lane] else ~taken)) == 0
        assert out[3][lane] == mask(v & 3 == v[lane] & 3)
        assert out[4][lane] == mask(v & 1 == v[lane] & 1)
    assert set(out[5]) == {0}  # all lanes, and the predicate: 2^32 - 1 + 1
    assert set(out[6]) == {0}
    for lane in range(20):
        assert (out[7][lane] >> lane & 1) == (lane & 4 == 0)
    left = (LANES >= 20) | (LANES & 4 == 0)
    np.testing.assert_array_equal(out[8], np.where(left, MASK, 0))
    np.testing.assert_array_equal(out[9], np.where(left, LANES, 0))


def test_reductions(corpus: Corpus) -> None:
    v, out = numbers(32), np.zeros((13, 32), np.int32)
    corpus.run("reductions", 1, 32, v, out)
    u = v.view(np.uint32)
    if corpus.compute >= 80:
        want = [v.sum(), v.min(), v.max(), u.max().view(np.int32), np.bitwise_and.reduce(v), np.bitwise_or.reduce(v)]
        for row, value in enumerate([*want, np.bitwise_xor.reduce(v)]):
            assert set(out[row]) == {value}, row
        np.testing.assert_array_equal(out[7], np.where(LANES < 8, v[:8].sum(), 0))
    tiles = v.reshape(4, 8)
    np.testing.assert_array_equal(out[8], np.repeat(tiles.sum(1), 8))
    np.testing.assert_array_equal(out[9], tiles.cumsum(1).ravel())
    np.testing.assert_array_equal(out[10].reshape(4, 8), [[(t & 1 == x & 1).sum() for x in t] for t in tiles])
    ranks = [[(t[:k] & 2 == t[k] & 2).sum() for k in range(8)] for t in tiles]
    np.testing.assert_array_equal(out[11].reshape(4, 8), ranks)
    chosen = v & 4 != 0
    assert (out[12][chosen] < chosen.sum()).all()


def test_atomics_of_32_bits(corpus: Corpus) -> None:
    v = np.random.default_rng(1).integers(0, 1 << 32, 1024, dtype=np.uint32)
    out = np.zeros(16, np.uint32)
    out[[2, 6, 15]] = MASK
    corpus.run("integers", 4, 256, v, out)
    s = v.view(np.int32)
    total = int(v.astype(np.uint64).sum()) & MASK
    want = [total, -total & MASK, v.min(), v.max(), min(0, int(s.min())) & MASK, max(0, s.max())]
    want += [np.bitwise_and.reduce(v | 0x0F), np.bitwise_or.reduce(v & 0xF0F0), np.bitwise_xor.reduce(v)]
    down = 0
    for _ in range(1024):
        down = 99 if down == 0 or down > 99 else down - 1
    want += [1024 % 100, down, 2048, 1024, 4 * (256 % 6), v.max(), np.bitwise_and.reduce(v)]
    assert [int(x) for x in out] == [int(x) for x in want]


def test_atomics_of_64_bits(corpus: Corpus) -> None:
    v = np.random.default_rng(1).integers(0, 1 << 63, 512, dtype=np.uint64) * np.uint64(2)
    out = np.zeros(9, np.uint64)
    out[[1, 5]] = np.uint64(2**64 - 1)
    corpus.run("wide", 2, 256, v, out)
    s = v.view(np.int64)
    want = [sum(int(x) for x in v) % 2**64, v.min(), v.max(), min(0, int(s.min())) % 2**64, max(0, int(s.max()))]
    want += [np.bitwise_and.reduce(v | np.uint64(0xFF)), np.bitwise_or.reduce(v), np.bitwise_xor.reduce(v), 512 * 3]
    assert [int(x) for x in out] == [int(x) for x in want]


def test_values_that_atomics_return(corpus: Corpus) -> None:
    out = np.zeros(20, np.int32)
    out[0], out[17] = 7, 0x10000000
    corpus.run("returned", 1, 1, np.array([6], np.int32), out)
    # 17 holds four bytes, of which the last is 0x10; + 250 is 10, | 1 is 11
    assert out.tolist() == [
        9 ^ 6, 7, 12, 40, 40, 3, -1, 0, 9, 77 << 16, 0, 77_000, 13, 0, 3, -7, 1 + 120, 0x0B000000, 16 + 10_000, 0
    ]  # fmt: skip


def test_atomics_of_floats(corpus: Corpus) -> None:
    v = numbers(256, low=-8, high=8).astype(np.float32)
    out, wide = np.zeros(14, np.float32), np.zeros(1)
    pairs, half = np.zeros(2, np.float16), np.zeros(2, np.float16)
    out[4] = 1.25
    corpus.run("floats", 2, 128, v, out, wide, pairs, half)
    total = v.sum()
    assert out[:4].tolist() == [total, total, 256, total]
    assert out[4] == 2.5
    assert out[5] in (1.25, 2.5)
    assert wide[0] == total / 2
    assert pairs.tolist() == [total, -total]
    assert half[0] == 256
    if corpus.compute >= 90:
        assert out[8:14].tolist() == [total, 2 * total, 3 * total, 256, total, -total]
    if corpus.compute >= 80:
        bf16, one = np.zeros(2, np.uint16), np.zeros(2, np.uint16)
        corpus.run("bfloats", 1, 64, np.full(64, 0.5, np.float32), bf16, one)
        assert [bf16_value(int(x)) for x in (*bf16, one[0])] == [32, 64, 64]


def test_atomics_of_128_bits(corpus: Corpus) -> None:
    if corpus.compute < 90:
        pytest.skip("sm_90 and later have them")
    given = np.arange(6, dtype=np.uint64).reshape(3, 2) + 10
    out = np.full((4, 2), 7, np.uint64)
    corpus.run("halves_of_128", 1, 1, given, out)
    np.testing.assert_array_equal(out, [given[2], [7, 7], given[0], given[0]])


def bf16_value(bits: int) -> float:
    return float(np.uint32(bits << 16).view(np.float32))


def bf16_bits(value: float, nearest: bool = True) -> int:
    """One rounding, of an exact value."""
    if value == 0:
        return 0x8000 if np.signbit(value) else 0
    low = int(np.float32(value).view(np.uint32)) >> 16
    exact = Fraction(value)
    candidates = [low - 1, low, low + 1]
    if not nearest:
        return max((c for c in candidates if abs(Fraction(bf16_value(c))) <= abs(exact)), key=lambda c: c)
    return min(candidates, key=lambda c: (abs(Fraction(bf16_value(c)) - exact), c & 1))


def lane(value: int, number: int, bits: int, is_signed: bool) -> int:
    part = value >> number * bits & ((1 << bits) - 1)
    return signed(part, bits) if is_signed else part


def simd(bits: int, is_signed: bool, operation: Any, *values: int) -> int:
    total = 0
    for number in range(32 // bits):
        part = operation(*(lane(v, number, bits, is_signed) for v in values))
        total |= (int(part) & ((1 << bits) - 1)) << number * bits
    return total


def clamp(x: int, low: int, high: int) -> int:
    return max(low, min(high, x))


def integer_reference(a: int, b: int, c: int) -> list[int]:
    sa, sb, sc = (signed(x, 32) for x in (a, b, c))
    both = b << 32 | a
    dot = [sum(lane(a, k, 8, s) * lane(b, k, 8, s) for k in range(4)) for s in (True, False)]
    selected = [both >> 8 * (c >> 4 * k & 7) & 0xFF for k in range(4)]
    bits24 = signed(a, 24) * signed(b, 24)
    position, length = b & 31, c & 31
    sign = a >> min(position + length - 1, 31) & 1 if length else 0
    field = [a >> position + k & 1 if k < length and position + k < 32 else sign for k in range(32)]
    place = c & 31
    wide = ((1 << 7) - 1) << place & MASK
    low = b & 31
    return [
        sc + dot[0], c + dot[1], sc + signed(a, 16) * lane(b, 0, 8, True) + lane(a, 1, 16, True) * lane(b, 1, 8, True),
        sum(s << 8 * k for k, s in enumerate(selected)), (both << (c & 31)) >> 32, both >> min(c & 63, 32), bits24,
        sa * sb >> 32, a * b >> 32, abs(a - b) + c, int(f"{a:032b}"[::-1], 2),
        (32 - a.bit_length()) + 100 * ((a & -a).bit_length()) + 10000 * a.bit_count(),
        simd(8, False, lambda x, y: x + y, a, b), simd(16, True, lambda x, y: clamp(x + y, -32768, 32767), a, b),
        simd(8, False, lambda x, y: abs(x - y), a, b),
        sum(abs(lane(a, k, 8, True) - lane(b, k, 8, True)) for k in range(4)),
        simd(8, False, lambda x, y: (x + y + 1) >> 1, a, b),
        simd(16, True, lambda x, y: -1 if x > y else 0, a, b), max(signed(sa + sb, 32), sc),
        simd(16, False, min, a, b, c), sum(bit << k for k, bit in enumerate(field)),
        (b & ~wide) | (a << place & wide), signed(a, low) if low else 0, c ^ (a & b),
        simd(16, True, lambda x, y: clamp(x + y, -32768, 32767), a, b),
    ]  # fmt: skip


def test_integer_intrinsics(corpus: Corpus) -> None:
    n = 64
    given = np.random.default_rng(3).integers(0, 1 << 32, (3, n), dtype=np.uint32)
    given[:, :4] = [[0, MASK, 1 << 31, 5], [0, MASK, 1, 1 << 31], [0, MASK, 33, 4]]
    out = np.zeros((25, n), np.uint32)
    corpus.run("integer_intrinsics", 1, n, given, out)
    for i in range(n):
        want = [x & MASK for x in integer_reference(*(int(x) for x in given[:, i]))]
        assert out[:, i].tolist() == want, [hex(x) for x in given[:, i]]


def test_int128(corpus: Corpus) -> None:
    rng = np.random.default_rng(5)
    values = [signed(int.from_bytes(rng.bytes(16), "little") >> int(s), 128) for s in rng.integers(0, 120, 32)]
    given = np.frombuffer(b"".join((v % 2**128).to_bytes(16, "little") for v in values), np.uint64)
    out = np.zeros(7 * 16 * 2, np.uint64)
    corpus.run("int128", 1, 16, given.copy(), out)
    raw = out.tobytes()
    got = [[int.from_bytes(raw[16 * (16 * k + i) :][:16], "little") for i in range(16)] for k in range(7)]
    for i in range(16):
        a, b = values[i], values[16 + i]
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        shift = b & 127
        want = [a * b, quotient, a - quotient * b, a - b, a >> shift, (a % 2**128) >> shift, a << shift]
        assert [row[i] for row in got] == [x % 2**128 for x in want], (a, b)


def test_rounding_modes(corpus: Corpus) -> None:
    rng = np.random.default_rng(7)
    a, b = (rng.standard_normal((2, 64)) * 10.0 ** rng.integers(-3, 4, (2, 64))).astype(np.float32)
    out = np.zeros((11, 64), np.float32)
    corpus.run("rounded", 1, 64, np.concatenate([a, b]), out)

    def directed(exact: Fraction, mode: str) -> float:
        near = np.float32(float(exact))
        around = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
        up = mode == "up" or (mode == "zero" and exact < 0)
        fit = [x for x in around if (Fraction(float(x)) >= exact if up else Fraction(float(x)) <= exact)]
        return float(min(fit) if up else max(fit))

    for i in range(64):
        x, y = Fraction(float(a[i])), Fraction(float(b[i]))
        bits = int(a[i].view(np.int32))
        want = [directed(x + y, "zero"), directed(x + y, "up"), directed(x * y, "down"), directed(x * y + x, "zero")]
        want += [directed(x / y, "up")]
        assert out[:5, i].tolist() == want
        root = Fraction(float(out[5, i]))
        assert root * root <= abs(x) < Fraction(float(np.nextafter(out[5, i], np.float32(np.inf)))) ** 2
        assert out[6:9, i].tolist() == [directed(x * y, "up"), directed(Fraction(bits), "zero"), float(np.floor(a[i]))]
        assert out[9:, i].tolist() == [min(a[i], b[i]), min(max(a[i], 0), 1)]


def test_halves(corpus: Corpus) -> None:
    rng = np.random.default_rng(9)
    given = (rng.standard_normal((2, 64)) * 8).astype(np.float16)
    single = (rng.standard_normal(64) * 10.0 ** rng.integers(-6, 4, 64)).astype(np.float32)
    out = np.zeros((14, 64), np.float16)
    corpus.run("halves", 1, 64, given, out, single)
    a, b = given.astype(np.float64)
    fused = (a * b + a).astype(np.float16)
    near = single.astype(np.float16)
    towards = np.where(np.abs(near) > np.abs(single), np.nextafter(near, np.float16(0)), near)
    above = np.where(near < single, np.nextafter(near, np.float16(np.inf)), near)
    ones = np.trunc(a) + (a < b)
    want = [a + b, a * b, fused, None, np.sqrt(np.abs(a)), np.minimum(a, b), near, towards, above, np.rint(a), fused]
    want += [b * b + a, ones, np.clip(a + b, 0, 1)]
    for row, value in enumerate(want):
        if value is not None:
            np.testing.assert_array_equal(out[row], value.astype(np.float16), str(row))
    np.testing.assert_allclose(out[3].astype(np.float64), a / b, rtol=2e-3)


def test_bfloats(corpus: Corpus) -> None:
    if corpus.compute < 80:
        pytest.skip("the header's arithmetic needs sm_80")
    given = (np.random.default_rng(11).standard_normal((2, 64)) * 8).astype(np.float32)
    out = np.zeros((8, 64), np.uint16)
    corpus.run("bfloats_of", 1, 64, given, out)
    for i in range(64):
        x, y = (bf16_value(bf16_bits(float(v))) for v in given[:, i])
        want = [bf16_bits(x), bf16_bits(x + y), bf16_bits(x * y), bf16_bits(x * y + x)]
        want += [bf16_bits(float(given[0, i]), nearest=False), bf16_bits(max(x, y)), bf16_bits(y * y)]
        assert out[:, i].tolist() == [*want, round(x) & 0xFFFF]


def fp8_values(mantissa: int, bias: int, top: int) -> list[float]:
    """Of the codes 0 to `top`."""
    values = []
    for code in range(top + 1):
        exponent, digits = code >> mantissa, code & ((1 << mantissa) - 1)
        scale = 2.0 ** (max(exponent, 1) - bias - mantissa)
        values.append((digits + ((1 << mantissa) if exponent else 0)) * scale)
    return values


def test_floats_of_8_bits(corpus: Corpus) -> None:
    rng = np.random.default_rng(13)
    x = (rng.standard_normal(256) * 10.0 ** rng.integers(-4, 5, 256)).astype(np.float32)
    x[:5] = [np.nan, np.inf, -np.inf, 448.0, -0.0]
    x[5:133] = (np.array(fp8_values(3, 7, 127)) * 1.0625)[:128]  # near, and on, ties
    out, values = np.zeros((4, 256), np.uint8), np.zeros((2, 256), np.float32)
    corpus.run("eights", 1, 256, x, out, np.arange(256, dtype=np.uint8), values)

    def encoded(value: float, table: list[float]) -> int:
        if np.isnan(value):
            return 0x7F
        magnitude = min(abs(value), table[-1] * 2)
        code = min(range(len(table)), key=lambda c: (abs(table[c] - magnitude), c & 1))
        return code | (0x80 if np.signbit(value) else 0)

    e4m3, e5m2 = fp8_values(3, 7, 0x7E), fp8_values(2, 15, 0x7B)
    assert out[0].tolist() == [encoded(float(v), e4m3) for v in x]
    assert out[1].tolist() == [encoded(float(v), e5m2) for v in x]
    with np.errstate(over="ignore"):
        assert out[2].tolist() == [encoded(float(v), e4m3) for v in x.astype(np.float16)]
    assert out[3].tolist() == [encoded(-float(v), e5m2) for v in x]
    for row, table in enumerate((e4m3, e5m2)):
        np.testing.assert_array_equal(values[row][: len(table)], table)
        np.testing.assert_array_equal(values[row][128 : 128 + len(table)], -np.array(table))
        assert np.isnan(values[row][[127, 255]]).all()
