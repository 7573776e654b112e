# SPDX-License-Identifier: Apache-2.0
"""Reading the openb lists, and making them longer."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from gpuvirt.errors import ConfigError
from gpuvirt.scheduler.model import Demand, Node, requested_milli
from gpuvirt.scheduler.traces import openb

NODES = ["sn,cpu_milli,memory_mib,gpu,model", "n-0,64000,262144,2,P100", "n-1,96000,1024,0,"]
PODS = [
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos",
    "p-0,12000,16384,1,1000,,LS",
    "p-1,6000,12288,1,460,V100M16|V100M32,LS",
    "p-2,100,10,0,0,,BE",
]


def test_lists_are_read() -> None:
    assert openb.nodes(NODES) == [Node("n-0", 64000, 262144, 2, "P100"), Node("n-1", 96000, 1024, 0, "")]
    assert openb.demands(PODS) == [
        Demand(12000, 16384, 1, 1000),
        Demand(6000, 12288, 1, 460, frozenset({"V100M16", "V100M32"})),
        Demand(100, 10),
    ]


def test_a_list_without_models_is_read() -> None:
    assert openb.demands(["name,cpu_milli,memory_mib,num_gpu,gpu_milli", "p,1,2,8,1000"]) == [Demand(1, 2, 8, 1000)]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "no column"),
        (NODES, "no column num_gpu, gpu_milli"),
        ([PODS[0], "p-0,12000,many,1,1000,,LS"], "line 2"),
        ([PODS[0], "p-0,12000"], "line 2"),
        ([PODS[0], PODS[1], "p-0,1,1,1,2000,,LS"], "line 3"),
    ],
)
def test_what_is_no_list_says_so(lines: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        openb.demands(lines)


def test_lengthened_at_the_end_up_to_the_ratio() -> None:
    pods = openb.demands(PODS)
    found = openb.stretched(pods, 10_000, 1.3, Random(1))
    assert Counter(found[:3]) == Counter(pods) and set(found) == set(pods)
    assert 12_000 < requested_milli(found) <= 13_000
    assert found == openb.stretched(pods, 10_000, 1.3, Random(1)) != openb.stretched(pods, 10_000, 1.3, Random(2))


def test_shortened_when_too_long() -> None:
    pods = openb.demands(PODS) * 10
    assert requested_milli(openb.stretched(pods, 3_000, 1.0, Random(1))) <= 3_000


def test_nothing_to_draw_from_ends() -> None:
    assert openb.stretched([Demand(1, 1)], 1_000, 1.3, Random(1)) == [Demand(1, 1)]
