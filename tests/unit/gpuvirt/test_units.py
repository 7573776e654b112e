# SPDX-License-Identifier: Apache-2.0
"""Sizes and times as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvirt.errors import UsageError
from gpuvirt.units import SIZE_LIMIT, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("1K", 1024), ("512M", 512 << 20), ("1.5GiB", 3 << 29), ("20gb", 20 << 30), (" 2 T ", 2 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "0.0G", "-1G", "1X", "G", "1 2", "1e9", "nan", "0x10", "4096P", "1G;", "0.1"]
)
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="size") as caught:
        parse_size(text)
    assert caught.value.hint


@given(st.integers(1, SIZE_LIMIT // 2))
def test_printed_sizes_can_be_read(size: int) -> None:
    """To within the one decimal that is printed."""
    text = format_size(size)
    assert len(text) <= 11
    assert parse_size(text) == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (350 << 20, "350 MiB"), (1536, "1.5 KiB"), (-(1 << 30), "-1 GiB")]
)
def test_format_size(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("20ms", 20_000_000), ("1.5s", 1_500_000_000), ("2m", 120 * 10**9), ("7 us", 7000), ("5ns", 5)],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "0s", "20", "-1s", "s", "1d", "0.1ns"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("nanoseconds", "text"), [(5, "5 ns"), (850_000, "850 us"), (12_300_000, "12.3 ms"), (4_200_000_000, "4.2 s")]
)
def test_format_duration(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text
