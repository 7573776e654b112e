# SPDX-License-Identifier: Apache-2.0
"""Records of switches: what is put into which one, and what is not believed."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gpuvirt.arbitration.facts import Move, Word
from gpuvirt.control.messages import Evicted, Restored
from gpuvirtd.arbiter.switches import BOUNDS_S, LIMIT, MOVED_KEPT, PLAIN_KEPT, Switch, Switches

MS = 1_000_000
MIB = 1 << 20
EVICT, RESTORE = Move.EVICT, Move.RESTORE


def nothing(job: str) -> int:
    return 0


def evicted(moved: int = 0, status: int = 0, **more: int) -> Evicted:
    return Evicted(status, 0, 0, moved, 0, more.pop("duration_ns", 10 * MS), **more)


def restored(moved: int = 0, status: int = 0, **more: int) -> Restored:
    return Restored(status, 0, 0, moved, 0, more.pop("duration_ns", 20 * MS), **more)


def granted(log: Switches, job: str, now: int) -> None:
    log.stored(job, Word.GRANTED, now, nothing)


def test_a_turn_with_all_that_belongs_to_it() -> None:
    log = Switches()
    granted(log, "a", 1 * MS)
    log.stored("a", Word.DRAIN, 100 * MS, nothing)
    log.stored("a", Word.CLOSED, 103 * MS, nothing)
    log.sent("a", EVICT, 103 * MS)
    log.heard("a", EVICT, evicted(6 * MIB, zero_bytes=1 * MIB, clean_bytes=2 * MIB, duplicate_bytes=3 * MIB,
                                  copy_ns=3 * MS, hash_ns=1 * MS, map_ns=2 * MS), 110 * MS)  # fmt: skip
    log.sent("b", RESTORE, 110 * MS)
    log.heard("b", RESTORE, restored(8 * MIB, zero_bytes=4 * MIB), 140 * MS)
    log.stored("b", Word.GRANTED, 141 * MS, {"a": 5 * MIB}.__getitem__)
    [turn, first] = log.last(10, everything=True)
    assert (turn.kind, turn.source, turn.target, turn.at) == ("turn", "a", "b", 141 * MS)
    assert (turn.drain_ns, turn.delay_ns, turn.stayed) == (3 * MS, 41 * MS, 5 * MIB)
    assert (turn.out.copied, turn.out.zero, turn.out.clean, turn.out.duplicate) == (6 * MIB, MIB, 2 * MIB, 3 * MIB)
    assert (turn.out.copy_ns, turn.out.hash_ns, turn.out.map_ns) == (3 * MS, 1 * MS, 2 * MS)
    assert turn.out.rate == 6 * MIB * 1000 / 3
    assert (turn.inward.copied, turn.inward.zero, turn.inward.requests) == (8 * MIB, 4 * MIB, 1)
    assert turn.inward.rate == 8 * MIB * 1000 / 20, "a shim that counts no copy time: all of the request's"
    assert (first.source, first.target, first.moved) == (None, "a", False)
    assert log.last(10, everything=False) == [turn]
    assert log.came["b"].zero == 4 * MIB and "a" not in log.came


def test_more_time_for_the_same_job_is_no_switch() -> None:
    log = Switches()
    granted(log, "a", 1 * MS)
    granted(log, "a", 2 * MS)
    log.stored("a", Word.OPEN, 3 * MS, nothing)
    assert len(log.last(10, everything=True)) == 1


def test_a_drain_that_is_taken_back_and_begun_again_counts_from_its_beginning() -> None:
    log = Switches()
    granted(log, "a", 0)
    log.stored("a", Word.DRAIN, 10 * MS, nothing)
    log.stored("a", Word.STEP, 20 * MS, nothing)
    log.stored("a", Word.DRAIN, 30 * MS, nothing)
    log.stored("a", Word.CLOSED, 40 * MS, nothing)
    granted(log, "b", 41 * MS)
    assert log.last(1, everything=True)[0].drain_ns == 30 * MS
    log.stored("b", Word.DRAIN, 50 * MS, nothing)
    log.stored("b", Word.OPEN, 55 * MS, nothing)  # nobody waits any more
    log.stored("b", Word.DRAIN, 90 * MS, nothing)
    log.stored("b", Word.CLOSED, 91 * MS, nothing)
    granted(log, "a", 92 * MS)
    assert log.last(1, everything=True)[0].delay_ns == 2 * MS


def test_room_for_the_holder_is_a_record_of_its_own() -> None:
    log = Switches()
    granted(log, "a", 0)
    log.sent("a", RESTORE, 5 * MS)
    log.heard("a", RESTORE, restored(), 6 * MS)
    assert log.last(10, everything=False) == [], "it grew into free memory"
    log.sent("b", EVICT, 10 * MS)
    log.heard("b", EVICT, evicted(3 * MIB), 20 * MS)
    log.sent("a", RESTORE, 20 * MS)
    log.heard("a", RESTORE, restored(), 25 * MS)
    [room] = log.last(10, everything=False)
    assert (room.kind, room.source, room.target, room.delay_ns) == ("room", None, "a", 15 * MS)
    assert room.out.copied == 3 * MIB and room.inward.requests == 1


def test_room_that_came_too_late_belongs_to_the_turn() -> None:
    log = Switches()
    granted(log, "a", 0)
    log.sent("b", EVICT, 10 * MS)
    log.heard("b", EVICT, evicted(3 * MIB), 20 * MS)
    log.stored("a", Word.DRAIN, 21 * MS, nothing)
    log.stored("a", Word.CLOSED, 22 * MS, nothing)
    granted(log, "b", 30 * MS)
    assert log.last(1, everything=False)[0].out.copied == 3 * MIB
    log.sent("b", RESTORE, 40 * MS)
    log.heard("b", RESTORE, restored(1), 41 * MS)
    assert log.last(1, everything=False)[0].out.copied == 0


def test_memory_that_comes_early_belongs_to_the_turn_that_follows() -> None:
    log = Switches()
    granted(log, "a", 0)
    log.sent("b", RESTORE, 10 * MS)
    log.heard("b", RESTORE, restored(7 * MIB), 30 * MS)
    assert log.last(10, everything=False) == []
    log.stored("a", Word.DRAIN, 50 * MS, nothing)
    log.stored("a", Word.CLOSED, 51 * MS, nothing)
    granted(log, "b", 52 * MS)
    [turn] = log.last(10, everything=False)
    assert (turn.inward.copied, turn.delay_ns) == (7 * MIB, 2 * MS)


def test_a_failure_is_not_hidden() -> None:
    log = Switches()
    granted(log, "a", 0)
    log.stored("a", Word.CLOSED, 1 * MS, nothing)
    log.sent("b", RESTORE, 1 * MS)
    log.heard("b", RESTORE, restored(0, status=2), 2 * MS)
    granted(log, "a", 3 * MS)
    [turn] = log.last(10, everything=False)
    assert (turn.inward.failed, turn.inward.requests, turn.delay_ns) == (1, 1, 2 * MS)


def test_what_the_daemon_called_off_is_no_failure() -> None:
    log = Switches()
    granted(log, "a", 0)
    log.sent("b", RESTORE, 1 * MS)
    log.heard("b", RESTORE, restored(3 * MIB, status=600), 2 * MS)
    log.stored("a", Word.CLOSED, 3 * MS, nothing)
    granted(log, "c", 4 * MS)
    [turn] = log.last(10, everything=False)
    assert (turn.target, turn.inward.failed, turn.inward.copied) == ("c", 0, 3 * MIB)


def test_a_job_that_ended_is_nobodys_predecessor() -> None:
    log = Switches()
    granted(log, "a", 0)
    log.ended("a")
    granted(log, "b", 5 * MS)
    assert log.last(1, everything=True)[0].source is None


def test_the_newest_are_kept_and_turns_without_memory_do_not_push_out_the_others() -> None:
    log = Switches()
    now = 0
    for number in range(MOVED_KEPT + 50):
        job = "ab"[number % 2]
        log.sent(job, RESTORE, now)
        log.heard(job, RESTORE, restored(MIB), now + 1)
        granted(log, job, now + 2)
        log.stored(job, Word.CLOSED, now + 3, nothing)
        now += 10
    for number in range(1000):
        job = "ab"[number % 2]
        granted(log, job, now)
        log.stored(job, Word.CLOSED, now + 3, nothing)
        now += 10
    assert len(log.last(1000, everything=False)) == MOVED_KEPT
    found = log.last(1000, everything=True)
    assert len(found) == MOVED_KEPT + PLAIN_KEPT
    assert [switch.at for switch in found] == sorted((switch.at for switch in found), reverse=True)
    assert (sum(log.histograms[True].counts), sum(log.histograms[False].counts)) == (MOVED_KEPT + 50, 1000)


def test_the_histogram() -> None:
    log = Switches()
    for delay in (int(1e6), int(1e6) + 1, int(60e9)):
        granted(log, "a", 0)
        log.stored("a", Word.DRAIN, 0, nothing)
        log.stored("a", Word.CLOSED, 0, nothing)
        granted(log, "b", delay)
        log.stored("b", Word.CLOSED, delay, nothing)
        log.ended("b")
    counts = log.histograms[False].counts
    assert (counts[0], counts[1], counts[-1], len(counts)) == (3 + 1, 1, 1, len(BOUNDS_S) + 1)


def test_what_nobody_can_have_moved_is_not_believed() -> None:
    log = Switches()
    for _ in range(3):
        log.heard("a", EVICT, evicted((1 << 64) - 1, hash_ns=(1 << 64) - 1), 1)
    granted(log, "b", 2)
    [turn] = log.last(1, everything=False)
    assert turn.out.copied == 3 * LIMIT and turn.out.hash_ns == 3 * LIMIT


STEPS = st.one_of(
    st.tuples(st.just("stored"), st.sampled_from("abc"), st.sampled_from(Word)),
    st.tuples(st.just("sent"), st.sampled_from("abc"), st.sampled_from(Move)),
    st.tuples(st.just("heard"), st.sampled_from("abc"), st.sampled_from(Move)),
    st.tuples(st.just("ended"), st.sampled_from("abc"), st.none()),
)


@given(st.lists(STEPS, max_size=60))
def test_any_order_of_events_loses_no_byte_and_makes_no_negative_time(steps: list[tuple[str, str, Any]]) -> None:
    log, now, told, kept = Switches(), 0, 0, 0
    records: list[Switch] = []
    for what, job, detail in steps:
        now += 5
        if what == "stored":
            log.stored(job, detail, now, nothing)
        elif what == "sent":
            log.sent(job, detail, now)
        elif what == "heard":
            told += 3
            log.heard(job, detail, restored(3) if detail is RESTORE else evicted(3), now)
        else:
            log.ended(job)
    for job in "xyz":  # whatever was under way ends up in a record
        now += 5
        granted(log, job, now)
        log.stored(job, Word.CLOSED, now, nothing)
    granted(log, "w", now)
    records = log.last(1000, everything=False)
    kept = sum(switch.out.copied + switch.inward.copied for switch in records)
    assert kept == told
    assert all(switch.delay_ns >= 0 and switch.drain_ns >= 0 for switch in log.last(1000, everything=True))
