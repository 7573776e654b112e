# SPDX-License-Identifier: Apache-2.0
"""The lease machine step by step: the cases that are worth reading."""

from __future__ import annotations

from scene import MS, START, Scene, credits, sends, words

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Move, Store, WakeUp, Word
from gpuvirt.arbitration.transitions import EPOCH_LIMIT


def test_alone_a_job_gets_everything_and_no_deadline() -> None:
    scene = Scene()
    client = scene.attach("a")
    assert sends(scene.want(client, 10)) == [(client, Move.RESTORE, 100)]
    (store,) = scene.moved(client)
    assert isinstance(store, Store)
    assert (store.word, store.deadline, store.fits) == (Word.OPEN, 0, True)
    assert scene.wake is None  # alone costs nothing


def test_without_memory_there_is_nothing_to_restore() -> None:
    scene = Scene()
    client = scene.attach("a")
    assert words(scene.want(client)) == [("a", Word.OPEN)]


def test_a_waiter_turns_open_into_granted_and_ends_the_quantum() -> None:
    scene = Scene(quantum=20 * MS)
    a = scene.run("a")
    b = scene.attach("b")
    scene.now += 5 * MS
    actions = scene.want(b)
    assert words(actions) == [("a", Word.GRANTED)]
    assert WakeUp(a) in actions
    assert scene.wake == START + 20 * MS  # from its grant on
    assert words(scene.later(14 * MS)) == []
    actions = scene.later(1 * MS)
    assert words(actions) == [("a", Word.DRAIN)]
    assert actions[-1] == WakeUp(a)  # after the word: it looks at the page when it wakes
    assert words(scene.drained(a)) == [("a", Word.CLOSED), ("b", Word.OPEN)]


def test_a_long_open_holder_still_gets_the_minimum() -> None:
    scene = Scene(quantum=20 * MS, minimum_run=MS)
    scene.run("a")
    b = scene.attach("b")
    scene.now += 1000 * MS
    scene.want(b)
    assert scene.wake == scene.now + MS
    assert words(scene.later_at_wake()) == [("a", Word.DRAIN)]


def test_idle_holder_goes_after_the_hold() -> None:
    scene = Scene(idle_hold=MS // 5)
    a = scene.run("a")
    b = scene.attach("b")
    scene.want(b)
    events.idle(scene.gpu, a)
    assert words(scene.decide()) == []
    assert scene.wake == scene.now + MS // 5
    assert words(scene.later_at_wake()) == [("a", Word.DRAIN)]


def test_work_during_the_hold_keeps_the_lease() -> None:
    scene = Scene(quantum=20 * MS)
    a = scene.run("a")
    b = scene.attach("b")
    scene.want(b)
    events.idle(scene.gpu, a)
    scene.decide()
    events.find(scene.gpu, a)[1].idle = False  # its page says RUNNING again
    assert words(scene.later(MS)) == []
    assert scene.wake == START + 20 * MS


def test_waiter_that_dies_gives_the_holder_its_peace() -> None:
    scene = Scene()
    scene.run("a")
    b = scene.attach("b")
    scene.want(b)
    events.gone(scene.gpu, b)
    assert words(scene.decide()) == [("a", Word.OPEN)]
    assert scene.wake is None


def test_weight_means_several_quanta_in_a_row() -> None:
    scene = Scene(quantum=10 * MS)
    a = scene.attach("a", weight=300)
    b = scene.attach("b", weight=100)
    scene.want(b)
    scene.want(a)
    for _ in range(400):
        holder = scene.gpu.holder
        assert holder is not None
        for _, word in words(scene.later_at_wake()):
            if word is Word.DRAIN:
                number = {"a": a, "b": b}[holder]
                scene.want(number)
                scene.drained(number)
    shares = {key: contender.held_ns for key, contender in scene.gpu.contenders.items()}
    assert abs(shares["a"] / sum(shares.values()) - 0.75) < 0.02


def test_only_the_deficit_is_evicted_then_the_next_is_restored() -> None:
    scene = Scene()
    a = scene.run("a", 70)
    b = scene.attach("b")
    scene.want(b, 70)
    scene.later_at_wake()
    # 70 + 70 - 100 leave, after 30 unused promises; the next job begins to come in meanwhile, as room is there.
    assert sends(scene.drained(a)) == [(a, Move.EVICT, 30), (b, Move.RESTORE, 70)]
    assert credits(scene.progress(a, 60)) == [(b, 40)]
    assert credits(scene.moved(a)) == [(b, 70)]
    assert words(scene.moved(b)) == [("b", Word.OPEN)]


def test_failed_restore_evicts_what_was_short() -> None:
    scene = Scene()
    a = scene.run("a", 40)
    b = scene.attach("b")
    scene.want(b, 40)
    scene.later_at_wake()
    scene.drained(a)  # its unused promises go
    scene.moved(a)
    assert events.find(scene.gpu, b)[1].request is not None
    assert sends(scene.moved(b, status=2, short=15)) == [(a, Move.EVICT, 25), (b, Move.RESTORE, 40)]
    assert credits(scene.moved(a)) == [(b, 40)]
    assert words(scene.moved(b)) == [("b", Word.OPEN)]
    assert scene.gpu.penalty == 0


def test_three_failed_restores_give_the_gpu_to_the_next() -> None:
    scene = Scene(restore_tries=3)
    a = scene.run("a")
    b = scene.attach("b")
    scene.want(b, 40)
    scene.later_at_wake()
    scene.drained(a)
    scene.moved(b, status=999)  # anything but out of memory: evicting would not help
    contender = scene.gpu.contenders["b"]
    assert contender.not_before == scene.now + scene.gpu.rules.stall
    assert "999" in contender.reason
    assert words(scene.want(a)) == [("a", Word.OPEN)]
    scene.now = contender.not_before
    assert words(scene.decide()) == [("a", Word.GRANTED)]


def test_holder_grows_while_it_runs() -> None:
    scene = Scene()
    a = scene.run("a", 60)
    b = scene.attach("b")
    scene.want(b, 30)
    events.idle(scene.gpu, a)
    scene.later_at_wake()
    scene.drained(a)
    scene.moved(a)
    scene.moved(b)
    assert scene.gpu.holder == "b"
    assert sends(scene.want(b, 70)) == [(a, Move.EVICT, 30)]
    actions = scene.moved(a)
    assert sends(actions) == [(b, Move.RESTORE, 70)]
    assert words(actions) == []  # it never lost the lease
    scene.moved(b)
    assert not scene.gpu.contenders["b"].waiting


def test_growth_beyond_the_siblings_promises_drains_the_job_once() -> None:
    """Two processes of one job: the first got all promises when it was alone, the second needs some."""
    scene = Scene()
    a = scene.run("job", 10)
    assert events.find(scene.gpu, a)[1].allowance == 100
    b = scene.attach("job")
    assert words(scene.want(b, 20)) == [("job", Word.DRAIN)]  # EVICT is only for drained processes
    scene.drained(a)
    assert sends(scene.drained(b)) == [(a, Move.EVICT, 80), (b, Move.RESTORE, 20)]
    assert credits(scene.moved(a)) == [(b, 20)]
    assert words(scene.moved(b)) == [("job", Word.OPEN)]


def test_a_job_is_one_lease_for_all_its_processes() -> None:
    scene = Scene()
    a1, a2 = scene.attach("a"), scene.attach("a")
    b = scene.attach("b")
    scene.want(a1)
    scene.want(b)
    scene.later_at_wake()
    assert words(scene.drained(a1)) == []
    assert words(scene.drained(a2)) == [("a", Word.CLOSED), ("b", Word.OPEN)]


def test_drained_zero_does_not_count_for_a_later_drain() -> None:
    """It was sent while the word allowed launches; what was launched after it is not drained."""
    scene = Scene()
    a = scene.run("a")
    late = scene.attach("a")
    b = scene.attach("b")
    scene.want(b)
    scene.later_at_wake()
    events.drained(scene.gpu, late, 0)
    assert words(scene.drained(a)) == []
    assert words(scene.drained(late)) == [("a", Word.CLOSED), ("b", Word.OPEN)]


def test_nobody_is_granted_while_one_that_came_back_has_not_drained() -> None:
    scene = Scene()
    a, b = scene.attach("a"), scene.attach("b")
    events.find(scene.gpu, a)[1].drained = False
    assert words(scene.want(b)) == []
    assert "drained" in scene.gpu.contenders["b"].reason
    events.drained(scene.gpu, a, 0)
    assert words(scene.decide()) == [("b", Word.OPEN)]


def test_recovery_holds_back_grants() -> None:
    scene = Scene()
    scene.gpu.hold_until = START + 50 * MS
    client = scene.attach("a")
    assert words(scene.want(client)) == []
    assert words(scene.later_at_wake()) == [("a", Word.OPEN)]


def test_what_cannot_fit_is_not_offered_the_gpu() -> None:
    scene = Scene()
    scene.run("a")
    b = scene.attach("b")
    assert scene.want(b, 101) == []
    assert "needs 101 B, the GPU has 100 B" in scene.gpu.contenders["b"].reason
    assert scene.gpu.contenders["a"].word is Word.OPEN
    scene.gpu.capacity = 120
    events.room_changed(scene.gpu)
    assert words(scene.decide()) == [("a", Word.GRANTED)]


def test_host_budget_makes_the_next_one_wait_and_says_so() -> None:
    scene = Scene()
    a = scene.run("a", 70)
    b = scene.attach("b")
    scene.want(b, 70)
    scene.later_at_wake()
    scene.gpu.host_room = 5
    assert sends(scene.drained(a)) == []
    assert "host memory budget" in scene.gpu.contenders["b"].reason
    scene.gpu.host_room = 1000
    events.room_changed(scene.gpu)
    assert sends(scene.decide()) == [(a, Move.EVICT, 30), (b, Move.RESTORE, 70)]


def test_epochs_wrap_without_zero() -> None:
    scene = Scene()
    scene.gpu.epoch = EPOCH_LIMIT - 1
    scene.run("a")
    assert scene.gpu.epoch == 1


def test_who_comes_seldom_need_not_wait_for_who_was_alone() -> None:
    """Time alone is charged: a job that had the GPU for itself gets no second quantum before the one that comes."""
    scene = Scene(quantum=20 * MS)
    busy, lazy = scene.run("busy"), scene.attach("lazy")
    for _ in range(5):
        scene.now += 300 * MS
        scene.want(lazy)
        assert words(scene.later_at_wake()) == [("busy", Word.DRAIN)]
        scene.want(busy)
        assert words(scene.drained(busy)) == [("busy", Word.CLOSED), ("lazy", Word.GRANTED)]
        scene.now += 5 * MS
        events.idle(scene.gpu, lazy)
        scene.decide()
        assert words(scene.later_at_wake()) == [("lazy", Word.DRAIN)]
        assert words(scene.drained(lazy)) == [("lazy", Word.CLOSED), ("busy", Word.OPEN)]
    contenders = scene.gpu.contenders
    assert contenders["busy"].open_ns >= 5 * 300 * MS - 20 * MS
    assert contenders["lazy"].held_ns < 6 * 6 * MS


def test_promises_above_a_shrunken_capacity_are_taken_back_at_the_next_switch() -> None:
    scene = Scene()
    a = scene.run("a", 90)
    b = scene.attach("b")
    scene.gpu.capacity = 80  # the context of b
    scene.want(b)
    scene.later_at_wake()
    assert sends(scene.drained(a)) == [(a, Move.EVICT, 80)]
    assert words(scene.moved(a)) == [("b", Word.OPEN)]


def test_excess_that_cannot_be_taken_back_holds_nobody_up() -> None:
    scene = Scene()
    a = scene.run("a", 90)
    b = scene.attach("b")
    scene.gpu.capacity = 80
    scene.gpu.host_room = 0
    events.find(scene.gpu, a)[1].allowance = 90
    scene.want(b)
    scene.later_at_wake()
    assert words(scene.drained(a)) == [("a", Word.CLOSED), ("b", Word.OPEN)]


def test_a_job_that_filled_the_device_before_a_context_came_may_use_the_reserve() -> None:
    scene = Scene()
    a = scene.run("a", 100)
    b = scene.attach("b")
    scene.gpu.capacity, scene.gpu.reserve = 92, 10
    scene.want(b, 50)
    scene.later_at_wake()
    scene.want(a, 100)
    assert sends(scene.drained(a)) == [(a, Move.EVICT, 42), (b, Move.RESTORE, 50)]
    scene.moved(a)
    scene.moved(b)
    assert scene.gpu.holder == "b"
    while scene.gpu.contenders["b"].word is not Word.DRAIN:
        scene.later_at_wake()
    assert sends(scene.drained(b)) == [(b, Move.EVICT, 0)]  # a began to come in while b still ran
    assert credits(scene.moved(b)) == [(a, 100)]
    assert words(scene.moved(a)) == [("a", Word.OPEN)]
    scene.gpu.reserve = 7
    scene.want(b, 50)
    while scene.gpu.contenders["a"].word is not Word.DRAIN:
        scene.later_at_wake()
    scene.want(a, 100)
    scene.drained(a)
    assert "needs 100 B" in scene.gpu.contenders["a"].reason
