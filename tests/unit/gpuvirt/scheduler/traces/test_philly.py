# SPDX-License-Identifier: Apache-2.0
"""Reading Philly's jobs."""

from __future__ import annotations

import pytest

from gpuvirt.errors import ConfigError
from gpuvirt.scheduler.simulate.engine import Request
from gpuvirt.scheduler.traces import philly

HEAD = "timestamp,duration,num_gpus,gpu_time,cluster"
ROWS = [
    "2017-10-09 07:01:55,66.9,1,66.0,a",
    "2017-10-09 07:00:41,64.0,2,64.0,b",
    "2017-10-09 07:00:55,5,1,5,a",
]


def test_sorted_and_from_zero() -> None:
    assert philly.read([HEAD, *ROWS]) == [Request(0, 2, 64, "b"), Request(14, 1, 5, "a"), Request(74, 1, 66, "a")]
    assert philly.read([HEAD, *ROWS], "a") == [Request(0, 1, 5, "a"), Request(60, 1, 66, "a")]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "no column timestamp, duration, num_gpus, cluster"),
        (["a,b"], "not a Philly trace"),
        ([HEAD], "no jobs"),
        ([HEAD, "yesterday,1,1,1,a"], "line 2"),
        ([HEAD, ROWS[0], "2017-10-09 07:00:41,x,2,64.0,b"], "line 3"),
        ([HEAD, "2017-10-09 07:00:41,nan,2,64.0,b"], "line 2"),
        ([HEAD, "2017-10-09 07:00:41,inf,2,64.0,b"], "line 2"),
        ([HEAD, "2017-10-09 07:00:41,-5,2,64.0,b"], "line 2"),
        ([HEAD, "2017-10-09 07:00:41,5,0,64.0,b"], "line 2"),
        ([HEAD, "2017-10-09 07:00:41,5"], "line 2"),
        ([HEAD, "2017-10-09 07:00:41+02:00,5,1,5,b", ROWS[0]], "time zone"),
    ],
)
def test_what_is_no_trace(lines: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        philly.read(lines)


def test_no_such_cluster() -> None:
    with pytest.raises(ConfigError, match="no jobs of cluster 'c'"):
        philly.read([HEAD, *ROWS], "c")
