# SPDX-License-Identifier: Apache-2.0
"""Jobs on several GPUs have all of them at one time, and shares hold beside jobs on one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from several import LAUNCHING, MS, Busy, Several

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Move, Store, Word
from gpuvirt.arbitration.forecast import forecast
from gpuvirt.arbitration.foresight import successor
from gpuvirt.arbitration.tape import Tape
from gpuvirt.arbitration.together import coordinate, form
from gpuvirt.simulation.replay import play

SECOND = 1000 * MS


class Watched(Busy):
    """Remembers every turn."""

    def __init__(self, count: int, policy: str = "fair", **rules: int | str) -> None:
        super().__init__(count, policy, **rules)
        self.turns: list[tuple[int, str, str]] = []

    def stored(self, gpu: object, action: Store) -> None:
        super().stored(gpu, action)  # type: ignore[arg-type]
        if action.word in LAUNCHING:
            self.turns.append((self.now, gpu.name, action.contender))  # type: ignore[attr-defined]

    def longest_wait(self, job: str) -> int:
        times = [at for at, _, key in self.turns if key == job]
        return max(later - earlier for earlier, later in pairwise(times))


def test_alone_it_has_all_its_gpus_when_one_of_its_processes_wants_one() -> None:
    several = Several(2)
    first, second = several.join("a", 0), several.join("a", 1)
    several.want(first)
    assert several.words_of("a") == [Word.OPEN, Word.OPEN]
    assert several.word(second) is Word.OPEN


def test_two_gangs_on_the_same_gpus_take_turns() -> None:
    busy = Busy(2)
    busy.begin("a", 0, 1)
    busy.begin("b", 0, 1)
    busy.run(SECOND)
    shares = busy.shares(20 * SECOND)
    assert all(share == pytest.approx(0.5, abs=0.01) for share in shares.values()), shares


def test_weights_of_gangs() -> None:
    busy = Busy(2)
    busy.begin("a", 0, 1, weight=3)
    busy.begin("b", 0, 1)
    busy.run(SECOND)
    shares = busy.shares(20 * SECOND)
    assert shares["a", 0] == pytest.approx(0.75, abs=0.01)
    assert shares["a", 1] == pytest.approx(0.75, abs=0.01)
    assert shares["b", 0] == pytest.approx(0.25, abs=0.01)


def test_a_gang_has_its_share_where_most_want_it_and_others_use_the_rest() -> None:
    busy = Busy(2)
    busy.begin("gang", 0, 1)
    for name in ("x", "y"):
        busy.begin(name, 0)
    busy.begin("z", 1)
    busy.run(SECOND)
    shares = busy.shares(20 * SECOND)
    assert shares["gang", 0] == pytest.approx(1 / 3, abs=0.02), shares
    assert shares["x", 0] == pytest.approx(1 / 3, abs=0.02), shares
    assert shares["z", 1] == pytest.approx(2 / 3, abs=0.03), shares
    assert sum(share for (_, gpu), share in shares.items() if gpu == 0) > 0.97
    assert sum(share for (_, gpu), share in shares.items() if gpu == 1) > 0.97


def test_a_chain_of_gangs_over_three_gpus() -> None:
    """a: 0 and 1, b: 1 and 2, c: 2 and 0: only one of them at a time, and none starves."""
    watched = Watched(3)
    watched.begin("a", 0, 1)
    watched.begin("b", 1, 2)
    watched.begin("c", 2, 0)
    watched.run(SECOND)
    watched.turns.clear()
    shares = watched.shares(20 * SECOND)
    assert shares["a", 0] == pytest.approx(1 / 3, abs=0.02), shares
    assert shares["b", 2] == pytest.approx(1 / 3, abs=0.02), shares
    assert max(map(watched.longest_wait, "abc")) < 150 * MS


@pytest.mark.parametrize("policy", ["fair", "priority", "deadline", "tiers"])
def test_a_wide_gang_does_not_starve_among_narrow_jobs(policy: str) -> None:
    watched = Watched(4, policy)
    watched.begin("wide", 0, 1, 2, 3)
    for index in range(4):
        watched.begin(f"one{index}", index)
        watched.begin(f"two{index}", index)
    watched.begin("pair", 1, 2)
    watched.run(10 * SECOND)
    assert watched.longest_wait("wide") < 300 * MS
    assert watched.longest_wait("pair") < 300 * MS
    assert watched.longest_wait("two3") < 300 * MS


def test_what_it_missed_on_one_gpu_it_does_not_take_from_others_for_long() -> None:
    """Five jobs beside it on GPU 0, one on GPU 1: when the five have ended, the one on GPU 1 goes on in turns."""
    watched = Watched(2)
    watched.begin("gang", 0, 1)
    for index in range(5):
        watched.begin(f"x{index}", 0)
    watched.begin("z", 1)
    watched.run(20 * SECOND)
    for rank in [rank for rank in watched.ranks.values() if rank.job.startswith("x")]:
        watched.leave(rank)
    watched.turns.clear()
    watched.run(5 * SECOND)
    assert watched.longest_wait("z") < 200 * MS


def test_a_job_of_a_higher_priority_on_one_gpu_takes_all_of_them_back() -> None:
    several = Several(2, "priority")
    ranks = [several.join("gang", 0), several.join("gang", 1)]
    several.want(ranks[0])
    assert several.words_of("gang") == [Word.OPEN, Word.OPEN]
    for rank in ranks:
        events.find(rank.gpu, rank.number)[1].idle = False
    several.later(50 * MS)
    urgent = several.join("urgent", 1, priority=1)
    several.want(urgent)
    several.later(2 * MS)
    assert several.words_of("gang") == [Word.DRAIN, Word.DRAIN]
    several.drained(ranks[1])
    assert several.word(urgent) is Word.CLOSED, "what is on GPU 0 may need what is on GPU 1"
    several.drained(ranks[0])
    assert several.words_of("gang") == [Word.CLOSED, Word.CLOSED]
    assert several.word(urgent) in LAUNCHING


def test_a_drain_that_is_stuck_lets_all_its_gpus_go_on() -> None:
    several = Several(2)
    ranks = [several.join("gang", 0), several.join("gang", 1)]
    other = several.join("other", 0)
    several.want(ranks[0])
    for rank in ranks:
        events.find(rank.gpu, rank.number)[1].idle = False
    several.want(other)
    several.later(21 * MS)
    assert several.words_of("gang") == [Word.DRAIN, Word.DRAIN]
    several.drained(ranks[1])
    several.want(ranks[1])  # its threads wait at the gate
    several.stuck(ranks[0])
    assert several.words_of("gang") == [Word.STEP, Word.STEP]
    assert several.word(other) is Word.CLOSED
    several.later(15 * MS)
    assert several.words_of("gang") == [Word.DRAIN, Word.DRAIN]
    several.drained(ranks[0])
    assert several.words_of("gang") == [Word.DRAIN, Word.DRAIN], "rank 1 has had work again"
    several.drained(ranks[1])
    assert several.words_of("gang") == [Word.CLOSED, Word.CLOSED]
    assert several.word(other) in LAUNCHING


def test_a_process_on_another_gpu_gets_it_before_others() -> None:
    """What the job has on the first GPU may wait for it."""
    several = Several(2)
    first = several.join("gang", 0)
    several.want(first)
    others = [several.join("x", 1), several.join("y", 1), several.join("z", 0)]
    for rank in others:
        several.want(rank)
        events.find(rank.gpu, rank.number)[1].idle = False
    events.find(first.gpu, first.number)[1].idle = False
    assert several.words_of("x") == [Word.GRANTED]
    second = several.join("gang", 1)
    several.want(second)
    several.later(25 * MS)
    several.stuck(first)
    several.later(25 * MS)
    several.drained(others[0])
    assert several.word(second) in LAUNCHING, "before y"
    assert several.words_of("gang")[0] in LAUNCHING, "it goes on where it was stuck"


def test_memory_comes_in_on_all_its_gpus_before_it_is_granted() -> None:
    several = Several(2)
    ranks = [several.join("gang", 0), several.join("gang", 1)]
    for rank in ranks:
        events.find(rank.gpu, rank.number)[1].restored = False
    several.want(ranks[0], 60)
    several.want(ranks[1], 60)
    assert [rank.asked.move for rank in ranks if rank.asked] == [Move.RESTORE, Move.RESTORE]
    several.answer(ranks[0])
    assert several.words_of("gang") == [Word.CLOSED, Word.CLOSED]
    several.answer(ranks[1])
    assert several.words_of("gang") == [Word.OPEN, Word.OPEN]


def test_a_suspended_gang_leaves_all_its_gpus() -> None:
    several = Several(2)
    ranks = [several.join("gang", 0), several.join("gang", 1)]
    several.want(ranks[0])
    for gpu in several.gpus:
        events.set_suspended(gpu, "gang", True)
        several.settle(gpu)
    assert several.words_of("gang") == [Word.DRAIN, Word.DRAIN]
    for rank in ranks:
        several.drained(rank)
    assert several.words_of("gang") == [Word.CLOSED, Word.CLOSED]
    several.want(ranks[1])
    assert several.words_of("gang") == [Word.CLOSED, Word.CLOSED]
    for gpu in several.gpus:
        events.set_suspended(gpu, "gang", False)
        several.settle(gpu)
    assert several.words_of("gang") == [Word.OPEN, Word.OPEN]


def test_exclusive_gangs_come_in_the_order_in_which_they_began_to_wait() -> None:
    several = Several(2, "exclusive")
    owner = several.join("owner", 0)
    several.want(owner)
    several.later(MS)
    ranks = [several.join("gang", 0), several.join("gang", 1)]
    several.want(ranks[0])
    several.later(MS)
    late = several.join("late", 1)
    several.want(late)
    assert several.word(late) is Word.CLOSED, "it would have the GPU until it ends"
    several.leave(owner)
    assert several.words_of("gang") == [Word.OPEN, Word.OPEN] or several.words_of("gang") == [Word.OPEN, Word.GRANTED]
    assert several.gpus[1].owner == "gang"


def test_it_is_idle_when_it_is_idle_everywhere() -> None:
    several = Several(2)
    ranks = [several.join("gang", 0), several.join("gang", 1)]
    several.want(ranks[0])
    for rank in ranks:
        events.find(rank.gpu, rank.number)[1].idle = False
    other = several.join("other", 0)
    several.want(other)
    assert several.words_of("gang") == [Word.GRANTED, Word.GRANTED], "it says when it is idle, on GPU 1, too"
    several.idle(ranks[0])
    several.later(5 * MS)
    assert several.words_of("gang") == [Word.GRANTED, Word.GRANTED]
    several.idle(ranks[1])
    several.later(MS)
    assert several.words_of("gang") == [Word.DRAIN, Word.DRAIN]


def test_a_gang_ends_with_its_processes() -> None:
    several = Several(2)
    ranks = [several.join("gang", 0), several.join("gang", 1)]
    several.want(ranks[0])
    several.leave(ranks[1])
    assert several.contender("gang", 0).gang is None
    assert several.words_of("gang") == [Word.OPEN]
    several.leave(ranks[0])
    assert all(gpu.reserved is None and gpu.holder is None for gpu in several.gpus)


def test_where_there_is_no_gang_nothing_changes() -> None:
    several = Several(2)
    for job, index in (("a", 0), ("b", 1)):
        several.want(several.join(job, index))
    assert not form(several.gpus)
    assert coordinate(several.gpus, several.now) == []


def test_a_tape_of_one_of_its_gpus_is_played_once_more() -> None:
    busy, lines = Busy(2), list[bytes]()
    busy.gpus[1].tape = Tape(busy.gpus[1], lines.append)
    busy.begin("gang", 0, 1)
    busy.begin("x", 0)
    busy.begin("y", 1)
    busy.run(SECOND // 4)
    result = play(lines)
    assert result.difference is None
    assert result.grants > 4


def test_forecast_and_foresight() -> None:
    """A forecast takes a gang for a job on this GPU; nothing is handed over ahead where other GPUs have a say."""
    busy = Busy(2)
    busy.begin("gang", 0, 1)
    busy.begin("x", 0)
    busy.run(SECOND)
    waiting = "x" if busy.gpus[0].holder == "gang" else "gang"
    expected = forecast(busy.gpus[0], waiting, busy.now, MS)
    assert expected.wait_ns is not None
    assert expected.wait_ns < 100 * MS
    for _ in range(400):
        busy.run(MS // 4)
        assert successor(busy.gpus[0], busy.now) is None
