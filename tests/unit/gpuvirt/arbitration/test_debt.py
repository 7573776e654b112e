# SPDX-License-Identifier: Apache-2.0
"""Who gives the GPU back late has shorter turns until that is made up for, and never for long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scene import MS, Scene

from gpuvirt.arbitration.debt import LIMIT, owe, repay
from gpuvirt.arbitration.facts import Contender, Rules


@given(overruns=st.lists(st.integers(-5 * MS, 500 * MS), max_size=5), quantum=st.integers(1 * MS, 200 * MS))
def test_a_debt_is_bounded_and_paid_in_quanta_that_are_still_worth_it(overruns: list[int], quantum: int) -> None:
    job, rules = Contender("job", quantum=quantum), Rules()
    for overrun in overruns:
        owe(job, overrun)
    assert job.debt_ns <= LIMIT * quantum
    for _ in range(8):
        before = job.debt_ns
        length = repay(job, quantum, rules)
        assert min(quantum, rules.minimum_run) <= length <= quantum
        assert length >= quantum // 4
        assert before - job.debt_ns == quantum - length
    assert job.debt_ns == 0 or quantum < 2 * rules.minimum_run


def test_an_overrun_shortens_the_next_turns() -> None:
    scene = Scene(quantum=20 * MS, drain_budget=10 * MS)
    slow = scene.run("slow")
    quick = scene.attach("quick")
    scene.want(quick)
    scene.later_at_wake()
    scene.want(slow)
    scene.later(20 * MS)
    scene.drained(slow)
    assert scene.gpu.contenders["slow"].debt_ns == 10 * MS
    assert scene.gpu.holder == "quick"
    scene.later_at_wake()
    scene.want(quick)
    while scene.gpu.holder != "slow":  # it was charged for the overrun: the other has a turn more
        scene.drained(quick) if scene.gpu.contenders["quick"].word.value == "drain" else scene.later_at_wake()
        scene.want(quick)
    assert scene.gpu.contenders["slow"].deadline == scene.now + 10 * MS
    assert scene.gpu.contenders["slow"].debt_ns == 0
