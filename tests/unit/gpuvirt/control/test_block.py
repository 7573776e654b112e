# SPDX-License-Identifier: Apache-2.0
"""The shared pages: only the daemon writes leases; what clients write is checked."""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvirt.control.block import (
    BYTES_LIMIT,
    EMPTY_REPORT,
    EPOCH_LIMIT,
    MOVING,
    PAGE_BYTES,
    ClientPage,
    ClientState,
    ClientWriter,
    LeasePage,
    LeaseState,
    LeaseView,
)
from gpuvirt.errors import ProtocolError


@pytest.fixture
def lease() -> Iterator[LeasePage]:
    page = LeasePage(7)
    yield page
    page.close()


@pytest.fixture
def client() -> Iterator[ClientPage]:
    page = ClientPage()
    yield page
    page.close()


def test_new_lease_is_closed(lease: LeasePage) -> None:
    view = LeaseView(lease.fd)
    assert view.word == (0, LeaseState.CLOSED)
    assert (view.generation, view.quota, view.deadline_ns, view.fits, view.members) == (7, 0, 0, False, (0, 0))


@given(epoch=st.integers(0, EPOCH_LIMIT - 1), state=st.sampled_from(LeaseState), deadline=st.integers(0, 1 << 63))
def test_word_holds_epoch_and_state(epoch: int, state: LeaseState, deadline: int) -> None:
    page = LeasePage(1)
    view = LeaseView(page.fd)
    page.store(epoch, state, deadline_ns=deadline, fits=True, window_us=500)
    page.set_quota(5)
    page.set_members(2, 9)
    assert view.word == (epoch, state)
    assert (view.deadline_ns, view.fits, view.quota, view.members) == (deadline, True, 5, (2, 9))
    assert view.window_us == 500
    view.close()
    page.close()


def test_nobody_else_can_write_or_cut_a_lease(lease: LeasePage) -> None:
    with pytest.raises(PermissionError):
        mmap.mmap(lease.fd, PAGE_BYTES)
    with pytest.raises(PermissionError):
        os.write(lease.fd, b"x")
    with pytest.raises(PermissionError):
        os.ftruncate(lease.fd, 0)
    again = os.open(f"/proc/self/fd/{lease.fd}", os.O_RDWR)
    with pytest.raises(PermissionError):
        mmap.mmap(again, PAGE_BYTES)
    os.close(again)


def test_store_wakes_who_waits(lease: LeasePage) -> None:
    view = LeaseView(lease.fd)
    done = threading.Event()

    def wait() -> None:
        view.wait((0, LeaseState.CLOSED), 5_000_000_000)
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    while not done.is_set():
        lease.store(1, LeaseState.OPEN, deadline_ns=0, fits=False)
        time.sleep(0.001)
    thread.join()
    assert view.word == (1, LeaseState.OPEN)


def test_client_page_cannot_be_cut(client: ClientPage) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(client.fd, 0)


def test_report_of_a_client(client: ClientPage) -> None:
    writer = ClientWriter(client.fd)
    writer.set(state=1, busy_ns=50, charged_bytes=4096, submitted=3)
    report = client.read(EMPTY_REPORT, 100)
    assert report.sane
    assert (report.state, report.busy_ns, report.charged_bytes, report.submitted) == (ClientState.RUNNING, 50, 4096, 3)


def test_what_moved_without_a_copy(client: ClientPage) -> None:
    writer = ClientWriter(client.fd)
    said = {name: number for number, name in enumerate((*MOVING, "host_bytes"), 1)}
    writer.set(**said)
    first = client.read(EMPTY_REPORT, 100)
    assert first.sane and {name: getattr(first, name) for name in said} == said
    for name in MOVING:
        writer.set(**{name: 0})
        again = client.read(first, 100)
        assert not again.sane and getattr(again, name) == said[name], "a counter never falls"
        writer.set(**{name: said[name]})
    writer.set(host_bytes=0)
    assert client.read(first, 100).host_bytes == 0, "what is given back is not there"
    writer.set(host_bytes=1 << 63)
    assert not client.read(first, 100).sane


@given(data=st.binary(min_size=464, max_size=464), now=st.integers(0, 1 << 62))
def test_any_bytes_give_a_possible_report(data: bytes, now: int) -> None:
    page = ClientPage()
    writer = ClientWriter(page.fd)
    previous = EMPTY_REPORT
    for content in (data, data[::-1], bytes(464)):
        writer.scribble(content)
        report = page.read(previous, now)
        assert report.state in ClientState
        assert 0 <= report.ready_since_ns <= now
        for name in ("busy_ns", "submitted", "waited_ns", *MOVING):
            assert getattr(report, name) >= getattr(previous, name), "counters never fall"
        for name in ("charged_bytes", "resident_bytes", "native_bytes", "host_bytes"):
            assert 0 <= getattr(report, name) <= BYTES_LIMIT
        previous = report
    writer.close()
    page.close()


def test_a_client_may_write_between_the_clock_and_the_copy(client: ClientPage) -> None:
    writer = ClientWriter(client.fd)
    now = time.monotonic_ns()
    writer.set(state=1, ready_since_ns=time.monotonic_ns() + 1)
    report = client.read(EMPTY_REPORT, now)
    assert report.sane
    assert report.ready_since_ns == now
    writer.set(ready_since_ns=time.monotonic_ns() + 10**12)
    assert not client.read(EMPTY_REPORT, now).sane


def test_impossible_values_are_replaced_and_noticed(client: ClientPage) -> None:
    writer = ClientWriter(client.fd)
    writer.set(busy_ns=10)
    first = client.read(EMPTY_REPORT, 100)
    writer.set(state=77, busy_ns=1 << 63, charged_bytes=1 << 63)
    report = client.read(first, 100)
    assert not report.sane
    assert (report.state, report.busy_ns, report.charged_bytes) == (ClientState.IDLE, 10, 0)


def test_pages_are_not_taken_for_each_other(lease: LeasePage, client: ClientPage) -> None:
    with pytest.raises(ProtocolError):
        LeaseView(client.fd)
