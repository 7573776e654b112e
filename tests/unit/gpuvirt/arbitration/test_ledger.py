# SPDX-License-Identifier: Apache-2.0
"""Accounts of device memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpuvirt.arbitration.facts import Client, Contender, Gpu
from gpuvirt.arbitration.ledger import Residue, capacity, fits, free, promised, published_quota

GIB = 1 << 30
sizes = st.integers(0, 1 << 40)


def gpu_with(*clients: Client, size: int = 100) -> Gpu:
    return Gpu("gpu", size, contenders={"a": Contender("a", clients={client.number: client for client in clients})})


def test_promises_and_what_is_left() -> None:
    gpu = gpu_with(Client(1, charged=30, allowance=40), Client(2, charged=50, allowance=50))
    assert promised(gpu.clients()) == 90
    assert free(gpu) == 10
    assert fits(gpu)
    gpu.capacity = 79
    assert free(gpu) == -11
    assert not fits(gpu)
    gpu.penalty = 5
    assert free(gpu) == -16


@given(total=sizes, reserve=sizes, residue=sizes)
def test_capacity_is_never_negative(total: int, reserve: int, residue: int) -> None:
    assert capacity(total, reserve, residue) == max(0, total - reserve - residue)


def test_residue_believes_the_smallest_of_the_last_samples() -> None:
    residue = Residue()
    assert residue.value == 0
    assert residue.sample(500, 200) == 0  # one figure may be wrong: not yet believed
    assert residue.sample(900, 200) == 0  # bytes on their way
    assert residue.sample(450, 200) == 250
    for _ in range(3):
        residue.sample(900, 200)
    assert residue.value == 700
    assert residue.sample(100, 200) == 0


def test_residue_without_clients_is_believed_at_once() -> None:
    residue = Residue()
    assert residue.sample_alone(300) == 300
    assert residue.sample(900, 200) == 300
    assert residue.sample_alone(0) == 0


def test_quota_is_what_was_asked_for_within_the_device() -> None:
    assert published_quota(None, 80 * GIB, 0, 0, GIB) == 80 * GIB
    assert published_quota(20 * GIB, 80 * GIB, 0, 0, GIB) == 20 * GIB
    assert published_quota(200 * GIB, 80 * GIB, 0, 0, GIB) == 80 * GIB


def test_quota_stays_within_the_host_budget_when_others_are_there() -> None:
    assert published_quota(None, 80 * GIB, 0, 40 * GIB, 100 * GIB) == 60 * GIB
    assert published_quota(None, 80 * GIB, 0, 140 * GIB, 100 * GIB) == 0


@given(wanted=st.none() | sizes, device=sizes, charged=sizes, others=sizes, budget=sizes)
def test_quota_never_takes_back_what_is_charged(
    wanted: int | None, device: int, charged: int, others: int, budget: int
) -> None:
    quota = published_quota(wanted, device, charged, others, budget)
    assert quota >= charged
    assert quota <= max(device, charged)
    if others and quota > charged:
        assert quota + others <= budget
