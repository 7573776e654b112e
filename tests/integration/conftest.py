# SPDX-License-Identifier: Apache-2.0
"""A host a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.host import Host, host


@pytest.fixture
def machine() -> Iterator[Host]:
    """A soft GPU of 256 MiB and a daemon with short turns, also where memory has to move."""
    with host(settings='[time]\nquantum = "30ms"\nswap_share = 0.6') as ready:
        yield ready
