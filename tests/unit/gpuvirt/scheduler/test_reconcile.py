# SPDX-License-Identifier: Apache-2.0
"""What hosts say, what follows from it, what they are told."""

from __future__ import annotations

from dataclasses import replace

from gpuvirt.scheduler.reconcile import Command, Report, Seen, Verb, advanced, commands, gone, told
from gpuvirt.scheduler.state import Demand, Job, Member, MemberState, Phase, Program, Rules, Spec

RULES = Rules()


def job(phase: Phase, *members: Member, name: str = "c1", restarts: bool = True) -> Job:
    spec = Spec("train", "all", "ann", "basic", Program(("true",)), Demand(1), restarts=restarts)
    return Job(name, name, spec, 0.0, phase=phase, members=members)


def member(rank: int = 0, node: str = "a", gpu: str = "g0", state: MemberState = MemberState.ASSIGNED) -> Member:
    return Member(rank, node, (gpu,), 1, state)


def seen(how: Seen, attempt: int = 1, code: int | None = None) -> Report:
    return Report(attempt, how, code)


def verbs(found: list[Command]) -> list[tuple[Verb, str]]:
    return [(one.verb, one.name) for one in found]


def after(one: Job, node: str, reports: dict[str, Report]) -> Job:
    return advanced(told(one, node, reports), 5.0, RULES)


def test_a_job_is_started_until_its_host_has_it() -> None:
    starting = job(Phase.STARTING, member())
    assert verbs(commands([starting], "a", {})) == [(Verb.START, "c1.0")]
    assert commands([starting], "b", {}) == []
    reports = {"c1.0": seen(Seen.RUNNING)}
    assert commands([starting], "a", reports) == []
    running = after(starting, "a", reports)
    assert (running.phase, running.started) == (Phase.RUNNING, 5.0)


def test_a_gang_runs_when_all_of_it_does() -> None:
    starting = job(Phase.STARTING, member(0, "a"), member(1, "b"))
    half = after(starting, "a", {"c1.0": seen(Seen.RUNNING)})
    assert half.phase is Phase.STARTING
    assert after(half, "b", {"c1.1": seen(Seen.RUNNING)}).phase is Phase.RUNNING


def test_who_gets_a_gpu_waits_until_it_has_been_left() -> None:
    leaves = job(Phase.SUSPENDING, member(state=MemberState.RUNNING), name="old")
    comes = job(Phase.STARTING, member(), name="new")
    beside = job(Phase.STARTING, member(gpu="g1"), name="beside")
    reports = {"old.0": seen(Seen.RUNNING)}
    assert verbs(commands([leaves, comes, beside], "a", reports)) == [(Verb.SUSPEND, "old.0"), (Verb.START, "beside.0")]
    reports = {"old.0": seen(Seen.SUSPENDED)}
    assert verbs(commands([leaves, comes], "a", reports)) == [(Verb.START, "new.0")]
    assert after(leaves, "a", reports).phase is Phase.SUSPENDED


def test_a_suspended_job_is_let_go_on() -> None:
    resuming = job(Phase.RESUMING, member(state=MemberState.SUSPENDED))
    assert verbs(commands([resuming], "a", {"c1.0": seen(Seen.SUSPENDED)})) == [(Verb.RESUME, "c1.0")]
    assert after(resuming, "a", {"c1.0": seen(Seen.RUNNING)}).phase is Phase.RUNNING


def test_ends() -> None:
    running = job(Phase.RUNNING, member(0, "a", state=MemberState.RUNNING), member(1, "b", state=MemberState.RUNNING))
    half = after(running, "a", {"c1.0": seen(Seen.ENDED, code=0)})
    assert half.phase is Phase.RUNNING
    assert after(half, "b", {"c1.1": seen(Seen.ENDED, code=0)}).phase is Phase.SUCCEEDED
    failing = after(half, "b", {"c1.1": seen(Seen.ENDED, code=3)})
    assert (failing.phase, failing.exit) == (Phase.FAILED, 3)
    assert "member 1 on b ended with 3" in failing.reason


def test_when_one_member_fails_the_others_are_stopped_first() -> None:
    running = job(Phase.RUNNING, member(0, "a", state=MemberState.RUNNING), member(1, "b", state=MemberState.RUNNING))
    stopping = after(running, "a", {"c1.0": seen(Seen.ENDED, code=1)})
    assert stopping.phase is Phase.STOPPING
    reports = {"c1.1": seen(Seen.RUNNING)}
    assert verbs(commands([stopping], "b", reports)) == [(Verb.STOP, "c1.1")]
    assert after(stopping, "b", {"c1.1": seen(Seen.ENDED, code=-15)}).phase is Phase.FAILED


def test_a_lost_host_starts_the_job_elsewhere_or_fails_it() -> None:
    running = job(Phase.RUNNING, member(0, "a", state=MemberState.RUNNING), member(1, "b", state=MemberState.RUNNING))
    stopping = advanced(gone(running, "a"), 5.0, RULES)
    assert (stopping.phase, stopping.then) == (Phase.STOPPING, Phase.PENDING)
    again = after(stopping, "b", {"c1.1": seen(Seen.ENDED, code=-9)})
    assert (again.phase, again.members) == (Phase.PENDING, ())
    once = job(Phase.RUNNING, member(state=MemberState.RUNNING), restarts=False)
    assert advanced(gone(once, "a"), 5.0, RULES).phase is Phase.FAILED


def test_a_host_that_has_forgotten_a_job_has_lost_it() -> None:
    running = job(Phase.RUNNING, member(state=MemberState.RUNNING))
    assert after(running, "a", {}).phase is Phase.PENDING


def test_an_earlier_attempt_is_no_news_of_this_one() -> None:
    starting = job(Phase.STARTING, replace(member(), attempt=2))
    reports = {"c1.0": seen(Seen.ENDED, attempt=1, code=0)}
    assert after(starting, "a", reports) == starting
    assert verbs(commands([starting], "a", reports)) == [(Verb.START, "c1.0")]


def test_what_nobody_knows_of_is_stopped_before_its_place_is_used() -> None:
    starting = job(Phase.STARTING, replace(member(), attempt=2))
    reports = {"c1.0": seen(Seen.RUNNING, attempt=1), "c7.0": seen(Seen.SUSPENDED)}
    assert verbs(commands([starting], "a", reports)) == [(Verb.STOP, "c1.0"), (Verb.STOP, "c7.0")]


def test_a_member_that_was_taken_out_is_stopped_and_then_forgotten() -> None:
    running = job(Phase.RUNNING, member(0, state=MemberState.RUNNING), member(1, gpu="g1", state=MemberState.STOPPING))
    reports = {"c1.0": seen(Seen.RUNNING), "c1.1": seen(Seen.RUNNING)}
    assert verbs(commands([running], "a", reports)) == [(Verb.STOP, "c1.1")]
    later = after(running, "a", {"c1.0": seen(Seen.RUNNING), "c1.1": seen(Seen.ENDED, code=-15)})
    assert later.phase is Phase.RUNNING
    assert [one.rank for one in later.members] == [0]


def test_what_was_never_started_can_be_stopped_whatever_its_host_remembers_of_before() -> None:
    stopping = replace(job(Phase.STOPPING, replace(member(), attempt=2)), then=Phase.CANCELLED)
    for reports in ({}, {"c1.0": seen(Seen.ENDED, attempt=1, code=0)}):
        assert after(stopping, "a", reports).phase is Phase.CANCELLED
    running = job(Phase.RUNNING, replace(member(state=MemberState.RUNNING), attempt=2))
    assert after(running, "a", {"c1.0": seen(Seen.ENDED, attempt=1, code=0)}).phase is Phase.PENDING
