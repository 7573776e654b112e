# SPDX-License-Identifier: Apache-2.0
"""Accounts of device memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpuvirt.arbitration.facts import Client, Contender, Gpu
from gpuvirt.arbitration.ledger import Bound, Quota, Residue, capacity, fits, free, promised, quota

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
    assert quota(None, 80 * GIB, 0) == Quota(80 * GIB, Bound.DEVICE)
    assert quota(20 * GIB, 80 * GIB, 0) == Quota(20 * GIB, Bound.LIMIT)
    assert quota(200 * GIB, 80 * GIB, 0) == Quota(80 * GIB, Bound.DEVICE)


def test_quota_stays_within_the_host_memory_when_others_are_there() -> None:
    assert quota(None, 80 * GIB, 0, host_room=60 * GIB, here=40 * GIB) == Quota(60 * GIB, Bound.BUDGET)
    assert quota(None, 80 * GIB, 0, host_room=-40 * GIB, here=140 * GIB) == Quota(0, Bound.BUDGET)
    assert quota(10 * GIB, 80 * GIB, 0, host_room=60 * GIB, here=40 * GIB) == Quota(10 * GIB, Bound.LIMIT)


def test_what_fits_on_the_device_beside_the_others_needs_no_host_memory() -> None:
    assert quota(None, 80 * GIB, 0, host_room=0, here=30 * GIB) == Quota(50 * GIB, Bound.BUDGET)
    assert quota(None, 80 * GIB, 0, host_room=60 * GIB, here=0).bound is Bound.DEVICE


def test_a_lowered_limit_holds_below_what_is_charged_and_other_bounds_do_not() -> None:
    assert quota(5 * GIB, 80 * GIB, 9 * GIB) == Quota(5 * GIB, Bound.LIMIT)
    assert quota(5 * GIB, 80 * GIB, 9 * GIB, host_room=0, here=90 * GIB) == Quota(5 * GIB, Bound.LIMIT)
    assert quota(None, 80 * GIB, 90 * GIB) == Quota(90 * GIB, Bound.DEVICE)
    assert quota(None, 80 * GIB, 9 * GIB, host_room=0, here=90 * GIB) == Quota(9 * GIB, Bound.BUDGET)


def test_what_is_reserved_can_be_charged_whatever_the_others_have() -> None:
    assert quota(None, 80 * GIB, 0, host_room=0, here=90 * GIB, reserve=8 * GIB) == Quota(8 * GIB, Bound.BUDGET)


@given(wanted=st.none() | sizes, device=sizes, charged=sizes, room=st.none() | st.integers(-1000, 1 << 40), here=sizes)
def test_quotas_take_nothing_back_and_keep_the_budget(
    wanted: int | None, device: int, charged: int, room: int | None, here: int
) -> None:
    found = quota(wanted, device, charged, room, here)
    assert found.bytes <= max(device, charged)
    if found.bound is Bound.LIMIT:
        assert found.bytes == wanted
    else:
        assert found.bytes >= charged
    if room is not None and found.bytes > charged:
        assert found.bytes <= max(0, room) or found.bytes + here <= device
