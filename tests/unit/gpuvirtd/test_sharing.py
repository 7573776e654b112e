# SPDX-License-Identifier: Apache-2.0
"""What the daemon keeps of memory that processes share: for whom, how long, how much."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

from gpuvirt.control.messages import Fetch, Share
from gpuvirtd import sharing
from gpuvirtd.sharing import HANDLES, Shares


def member(job: str, pid: int, heard: list[Any] | None = None) -> Any:
    session = None if heard is None else SimpleNamespace(send=heard.append)
    return SimpleNamespace(job=SimpleNamespace(id=job), process=SimpleNamespace(pid=pid), number=pid, session=session)


def descriptors(count: int) -> list[int]:
    return [os.memfd_create("memory") for _ in range(count)]


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def closed(fds: list[int]) -> bool:
    for _ in range(200):
        if not any(is_open(fd) for fd in fds):
            return True
        time.sleep(0.01)
    return False


def offer(shares: Shares, who: Any, first: int, fds: list[int], nonce: int = 7) -> int:
    return shares.share(who, Share(1, len(fds), nonce, first, 0), fds).status


def fetch(shares: Shares, who: Any, pid: int, first: int, count: int, nonce: int = 7) -> tuple[int, list[int]]:
    answer, fds = shares.fetch(who, Fetch(1, pid, nonce, first, count))
    return answer.status, fds


def test_only_the_same_job_gets_it() -> None:
    shares, fds = Shares(), descriptors(2)
    assert offer(shares, member("a", 10), 5, fds) == 0
    assert fetch(shares, member("a", 11), 10, 5, 2) == (0, fds)
    assert fetch(shares, member("a", 11), 10, 6, 1) == (0, fds[1:])
    assert fetch(shares, member("b", 12), 10, 5, 2) == (sharing.NOT_PERMITTED, [])
    assert fetch(shares, member("a", 11), 10, 6, 2) == (sharing.INVALID_HANDLE, [])
    assert fetch(shares, member("a", 11), 10, 5, 2, nonce=8) == (sharing.INVALID_HANDLE, [])
    shares.close()
    assert closed(fds)


def test_withdrawn_and_ended_are_let_go() -> None:
    shares, first, second = Shares(), descriptors(1), descriptors(1)
    offer(shares, member("a", 10), 0, first)
    offer(shares, member("a", 10), 1, second)
    shares.share(member("a", 10), Share(0, 1, 7, 0, 1), [])
    assert closed(first) and is_open(second[0])
    shares.forget("a", 10)
    assert closed(second)
    assert fetch(shares, member("a", 11), 10, 1, 1)[0] == sharing.INVALID_HANDLE


def test_whoever_has_opened_it_hears_that_the_owner_has_gone() -> None:
    shares = Shares()
    heard: list[Any] = []
    gone: list[Any] = []
    offer(shares, member("a", 10), 4, descriptors(2))
    fetch(shares, member("a", 11, heard), 10, 4, 2)
    fetch(shares, member("a", 12, gone), 10, 4, 2)
    shares.forget("a", 12)
    shares.share(member("a", 10), Share(0, 1, 7, 4, 1), [])
    assert [(told.request, told.pid, told.nonce, told.first, told.count) for told in heard] == [(0, 10, 7, 4, 1)]
    shares.forget("a", 10)
    assert [told.first for told in heard] == [4, 5]
    assert gone == []


def test_a_new_program_in_the_same_process_owns_nothing_of_the_old_one() -> None:
    shares, old, new = Shares(), descriptors(1), descriptors(1)
    offer(shares, member("a", 10), 0, old, nonce=1)
    offer(shares, member("a", 10), 0, new, nonce=2)
    assert closed(old)
    assert fetch(shares, member("a", 11), 10, 0, 1, nonce=2) == (0, new)
    shares.close()


def test_offered_again_replaces_the_old_descriptor() -> None:
    shares, old, new = Shares(), descriptors(1), descriptors(1)
    offer(shares, member("a", 10), 0, old)
    offer(shares, member("a", 10), 0, new)
    assert closed(old) and shares.offered("a") == 1
    shares.close()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_as_many_descriptors_as_were_announced(count: int) -> None:
    shares, fds = Shares(), descriptors(count)
    assert shares.share(member("a", 10), Share(1, 2, 7, 0, 0), fds).status == sharing.INVALID_VALUE
    assert closed(fds) and shares.offered("a") == 0


def test_a_job_cannot_use_up_the_daemons_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "OFFERS_MAX", 3)
    shares, fds, more = Shares(), descriptors(3), descriptors(1)
    assert offer(shares, member("a", 10), 0, fds) == 0
    answer = shares.share(member("a", 10), Share(1, 1, 7, 9, 0), more)
    assert answer.status == sharing.NOT_PERMITTED
    assert "3 pieces" in answer.reason
    assert closed(more)
    shares.close()


def test_what_the_program_exported_is_known_again_within_the_job() -> None:
    shares, fds = Shares(), descriptors(1)
    offer(shares, member("a", 10), HANDLES | 4, fds)

    def known(job: str, fd: int) -> int:
        return shares.known(member(job, 11), Fetch(1, 0, 0, 0, 0), [fd]).status

    assert known("a", os.dup(fds[0])) == 0
    assert known("b", os.dup(fds[0])) == sharing.NOT_FOUND
    assert known("a", os.memfd_create("other")) == sharing.NOT_FOUND
    shares.close()
