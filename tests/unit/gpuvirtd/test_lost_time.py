# SPDX-License-Identifier: Apache-2.0
"""Time lost to switching: when it counts, for whom, and that it adds up."""

from __future__ import annotations

from gpuvirt.arbitration.facts import Client, Contender, Gpu, Move, Request
from gpuvirtd.arbiter.lost import LostTime, loses, stands_still


def machine(**jobs: Client) -> Gpu:
    gpu = Gpu("gpu", capacity=100)
    for key, client in jobs.items():
        gpu.contenders[key] = Contender(key, clients={client.number: client})
    return gpu


def request(move: Move, late: bool = False) -> Request:
    return Request(move, 10, 0, 0, late)


def losers(gpu: Gpu) -> set[str]:
    return {key for key, contender in gpu.contenders.items() if loses(gpu, contender)}


def test_both_lose_while_one_leaves_for_the_other() -> None:
    out, comes, third = Client(1, waiting=True), Client(2, waiting=True), Client(3, waiting=True)
    gpu = machine(a=out, b=comes, c=third)
    gpu.next = "b"
    assert losers(gpu) == set() and not stands_still(gpu), "nothing moves yet"
    out.request = request(Move.EVICT)
    assert losers(gpu) == {"a", "b"} and stands_still(gpu), "c would wait anyhow"
    out.request, comes.request = None, request(Move.RESTORE)
    assert losers(gpu) == {"b"}
    comes.request = None
    assert losers(gpu) == set()


def test_who_does_not_want_the_gpu_loses_nothing() -> None:
    out = Client(1, request=request(Move.EVICT))
    gpu = machine(a=out, b=Client(2, waiting=True))
    gpu.next = "b"
    assert losers(gpu) == {"b"}


def test_while_somebody_holds_it_the_others_wait_for_their_turn() -> None:
    early = Client(2, waiting=True, request=request(Move.RESTORE))
    gpu = machine(a=Client(1), b=early)
    gpu.holder, gpu.next = "a", "b"
    assert losers(gpu) == set() and not stands_still(gpu)


def test_a_holder_that_needs_room() -> None:
    holder, leaves = Client(1, waiting=True), Client(2, request=request(Move.EVICT))
    gpu = machine(a=holder, b=leaves)
    gpu.holder = "a"
    assert losers(gpu) == {"a"} and not stands_still(gpu), "its other threads may run"
    leaves.request, holder.request = None, request(Move.RESTORE)
    assert losers(gpu) == {"a"}
    holder.waiting = False
    assert losers(gpu) == set()


def test_a_process_that_does_not_answer_counts_for_nobody() -> None:
    stopped = Client(1, request=request(Move.EVICT, late=True))
    gpu = machine(a=stopped, b=Client(2, waiting=True))
    gpu.next = "b"
    assert losers(gpu) == set() and not stands_still(gpu)


def test_a_restore_that_waits_for_credit_counts_while_somebody_makes_room() -> None:
    out, comes = Client(1), Client(2, waiting=True, request=request(Move.RESTORE))
    gpu = machine(a=out, b=comes)
    gpu.next = "b"
    assert comes.request is not None
    comes.request.waits = True
    assert losers(gpu) == set() and not stands_still(gpu)
    out.request = request(Move.EVICT)
    assert losers(gpu) == {"b"} and stands_still(gpu)


def test_it_adds_up() -> None:
    comes = Client(2, waiting=True)
    gpu = machine(a=Client(1), b=comes)
    gpu.next = "b"
    lost = LostTime()
    lost.look(gpu, 0)
    comes.request = request(Move.RESTORE)
    lost.look(gpu, 10)
    lost.look(gpu, 15)  # looked at again, nothing has changed
    assert (lost.of("b", 17), lost.of_gpu(17), lost.of("a", 17)) == (7, 7, 0)
    comes.request = None
    lost.look(gpu, 30)
    assert (lost.of("b", 99), lost.of_gpu(99)) == (20, 20)
    comes.request = request(Move.RESTORE)
    lost.look(gpu, 40)
    del gpu.contenders["b"]  # it died
    lost.look(gpu, 45)
    assert lost.of_gpu(99) == 25
    assert lost.of("b", 99) == 25, "until it is forgotten it is what it was at its end"
    lost.forget("b")
    assert lost.of("b", 99) == 0
