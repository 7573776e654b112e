# SPDX-License-Identifier: Apache-2.0
"""Jobs on hosts on a simulated clock: times and costs that can be reckoned by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpuvirt.scheduler.simulate.cluster import Arrival, Cluster, Outcome
from gpuvirt.scheduler.simulate.promises import figures
from gpuvirt.scheduler.state import Demand, Gpu, Node, NodeState, Program, Rules, Spec

GIB = 1 << 30
RULES = Rules(hysteresis=0.0, suspend_seconds=2.0, resume_seconds=3.0)


def host(name: str, gpus: int) -> Node:
    cards = tuple(Gpu(f"{name}{index}", index, "V100", 16 * GIB) for index in range(gpus))
    return Node(name, name, cards, 64_000, 512 * GIB, 256 * GIB, state=NodeState.READY)


def arrival(at: float, work: float, gpus: int = 1, tier: str = "basic", **more: int) -> Arrival:
    spec = Spec("job", "all", "user", tier, Program(("job",)), Demand(gpus), **more)  # type: ignore[arg-type]
    return Arrival(at, spec, work)


def ends(outcome: Outcome) -> dict[str, float]:
    return {job.id: job.ended or 0.0 for job in outcome.ended}


def test_one_after_the_other() -> None:
    outcome = Cluster([host("a", 1)], [arrival(0, 100), arrival(10, 50)], RULES).run()
    assert ends(outcome) == {"j0": 100.0, "j1": 150.0}
    assert figures(outcome, 1, RULES)["allocation"] == 1.0


def test_a_suspension_costs_what_the_rules_say_and_no_work() -> None:
    outcome = Cluster([host("a", 1)], [arrival(0, 100), arrival(40, 50, tier="premium")], RULES).run()
    assert ends(outcome) == pytest.approx({"j1": 92.0, "j0": 92.0 + 3.0 + 60.0})
    assert outcome.counts == {"Start": 2, "Suspend": 1, "Resume": 1}
    assert outcome.lost == pytest.approx(2.0 + 2.0 + 3.0)  # leaving, waiting for that, coming back


def test_who_begins_anew_does_its_work_again() -> None:
    full = replace(host("a", 1), swap_bytes=0)
    outcome = Cluster([full], [arrival(0, 100), arrival(40, 50, tier="premium")], RULES).run()
    assert outcome.counts["Requeue"] == 1
    assert ends(outcome)["j0"] == pytest.approx(92.0 + 100.0, abs=3.0)


def test_more_members_do_more() -> None:
    outcome = Cluster([host("a", 4)], [arrival(0, 100, members_min=1, members_max=4)], RULES).run()
    assert ends(outcome)["j0"] == pytest.approx(25.0, abs=1.0)


def test_promises_are_counted_while_they_are_taken_on() -> None:
    jobs = [arrival(0, 4000, tier="premium"), arrival(0, 4000, tier="premium")]
    outcome = Cluster([host("a", 1)], jobs, RULES, period=100.0, until=3900.0).run()
    row = figures(outcome, 1, RULES)
    assert (row["premium_kept"], row["premium_admitted"]) == (1.0, 0.5)
    assert row["premium_hours"] == pytest.approx(1.0, abs=0.2) or row["premium_hours"] == 0.0


def test_it_ends_when_it_is_told_to() -> None:
    outcome = Cluster([host("a", 1)], [arrival(0, 100), arrival(10, 50)], RULES, until=50.0).run()
    assert sorted(outcome.live) == ["j0", "j1"] and not outcome.ended
