# SPDX-License-Identifier: Apache-2.0
"""The words for fixed memory are those of the header's enum."""

from __future__ import annotations

import re
from pathlib import Path

from gpuvirt.control._control_block import lib
from gpuvirt.control.fixed import KINDS, kinds_of

HEADER = Path(__file__).parents[4] / "native/include/gpuvirt/control_block.h"


def test_every_kind_of_the_header_has_words() -> None:
    body = re.search(r"enum gv_fixed_kind \{(.*?)\};", HEADER.read_text(), re.S)
    assert body is not None
    numbers = {int(number) for _, number in re.findall(r"(GV_FIXED_\w+) = (\d+)", body.group(1))}
    numbers -= {lib.GV_FIXED_KINDS, lib.GV_FIXED_ROOM}
    assert [kind.number for kind in KINDS] == sorted(numbers) == list(range(lib.GV_FIXED_KINDS))
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert all(kind.noun and kind.reason for kind in KINDS)


def test_the_largest_first_and_nothing_that_is_not_there() -> None:
    entries = [(0, 0)] * lib.GV_FIXED_KINDS
    entries[lib.GV_FIXED_ARRAY] = (10, 2)
    entries[lib.GV_FIXED_MANAGED] = (20, 1)
    assert [(kind.name, size, count) for kind, size, count in kinds_of(entries)] == [
        ("managed", 20, 1),
        ("arrays", 10, 2),
    ]
    assert kinds_of(()) == []
