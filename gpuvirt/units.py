# SPDX-License-Identifier: Apache-2.0
"""Sizes and times as people write them."""

from __future__ import annotations

import re

from gpuvirt.errors import UsageError

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMGTP]?)(i?)B?\s*$", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_TIME = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ns|us|ms|s|m|h)\s*$")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
SIZE_LIMIT = 1 << 62


def parse_size(text: str) -> int:
    """Bytes of "512M", "1.5GiB", "20G" or "4096"; suffixes are powers of 1024.

    Raises UsageError for anything else, for 0 and for sizes of 2^62 bytes and more.
    """
    match = _SIZE.match(text)
    if match is None:
        raise UsageError(f"size '{text}' is not a number with a unit", "write for example 512M or 20G")
    size = int(float(match.group(1)) * 1024 ** _POWERS[match.group(2).upper()])
    if size <= 0:
        raise UsageError(f"size '{text}' is zero", "give at least one byte, or leave it out for no limit")
    if size >= SIZE_LIMIT:
        raise UsageError(f"size '{text}' is beyond any device", "write for example 512M or 20G")
    return size


def format_size(size: int) -> str:
    """Shortest of B, KiB, MiB, ... with at most one decimal: 367001600 -> "350 MiB"."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(value) < 1024 or unit == "PiB":
            return f"{value:.0f} {unit}" if value == int(value) or unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def parse_duration(text: str) -> int:
    """Nanoseconds of "20ms", "1.5s", "2m". Raises UsageError for anything else and for 0."""
    match = _TIME.match(text)
    if match is None:
        raise UsageError(f"duration '{text}' is not a number with a unit", "write for example 20ms or 2s")
    nanoseconds = round(float(match.group(1)) * _SECONDS[match.group(2)] * 1e9)
    if nanoseconds <= 0:
        raise UsageError(f"duration '{text}' is zero", "write for example 20ms or 2s")
    return nanoseconds


def format_duration(nanoseconds: int) -> str:
    """ "850 us", "12.3 ms", "4.2 s"."""
    for limit, scale, unit in ((1_000, 1, "ns"), (1_000_000, 1e3, "us"), (1_000_000_000, 1e6, "ms")):
        if nanoseconds < limit:
            return f"{nanoseconds / scale:.3g} {unit}"
    return f"{nanoseconds / 1e9:.1f} s"
