# SPDX-License-Identifier: Apache-2.0
"""What is heard becomes facts; what was not asked for is refused."""

from __future__ import annotations

import pytest

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Client, Gpu, Move, Request, Word

NOW = 10**9


def scene(**facts: object) -> tuple[Gpu, Client]:
    gpu = Gpu("gpu", 100)
    client = Client(1)
    for name, value in facts.items():
        setattr(client, name, value)
    events.attach(gpu, "a", 100, client)
    return gpu, client


def answer(gpu: Gpu, move: Move, status: int, charged: int, resident: int, short: int = 0) -> None:
    events.moved(gpu, 1, move, status, charged, resident, 0, short, 1, NOW)


def test_answers_must_have_been_asked_for() -> None:
    gpu, client = scene()
    for move in Move:
        with pytest.raises(events.UnexpectedAnswer):
            answer(gpu, move, 0, 0, 0)
    client.request = Request(Move.EVICT, 0, 0, NOW)
    with pytest.raises(events.UnexpectedAnswer):
        answer(gpu, Move.RESTORE, 0, 0, 0)


def test_growth_during_a_restore_is_no_full_device() -> None:
    gpu, client = scene(charged=30, allowance=30, request=Request(Move.RESTORE, 30, 0, NOW))
    answer(gpu, Move.RESTORE, 2, 40, 0, short=10)
    assert (gpu.penalty, client.allowance, client.charged, client.restored) == (0, 0, 40, False)
    assert gpu.contenders["a"].tries == 1  # who grows for ever is not asked for ever


def test_full_device_makes_the_ledger_pessimistic() -> None:
    gpu, client = scene(charged=30, allowance=30, request=Request(Move.RESTORE, 30, 0, NOW))
    answer(gpu, Move.RESTORE, 2, 30, 0, short=10)
    assert gpu.penalty == 80  # of 100: 20 are there for the 30 that it needs
    assert client.allowance == 0


def test_failed_evict_leaves_the_promise_and_the_client_alone_for_a_while() -> None:
    gpu, client = scene(charged=30, resident=30, allowance=40, request=Request(Move.EVICT, 10, 40, NOW))
    answer(gpu, Move.EVICT, 2, 30, 30)
    assert (client.allowance, client.restored) == (40, True)
    assert client.evict_not_before > NOW


def test_evict_that_says_done_and_is_not_frees_nothing() -> None:
    gpu, client = scene(charged=30, resident=30, allowance=40, request=Request(Move.EVICT, 10, 40, NOW))
    answer(gpu, Move.EVICT, 0, 30, 30)
    assert client.allowance == 30
    assert client.evict_not_before > NOW


def test_more_resident_than_allowed_is_not_believed() -> None:
    gpu, client = scene(allowance=10)
    events.memory(gpu, 1, 50, 50, 0)
    assert (client.charged, client.resident) == (50, 10)


def test_broken_connection_in_the_middle_of_a_move_counts_with_the_larger_promise() -> None:
    gpu, client = scene(charged=30, allowance=30, request=Request(Move.RESTORE, 30, 0, NOW))
    events.lost(gpu, 1)
    assert (client.allowance, client.restored, client.connected, client.request) == (30, False, False, None)


def test_drained_counts_only_while_the_word_forbids_launches() -> None:
    gpu, client = scene(drained=False)
    contender = gpu.contenders["a"]
    contender.word, contender.epoch = Word.GRANTED, 4
    events.drained(gpu, 1, 4)
    assert not client.drained
    contender.word = Word.DRAIN
    events.drained(gpu, 1, 3)
    assert not client.drained
    events.drained(gpu, 1, 4)
    assert client.drained
