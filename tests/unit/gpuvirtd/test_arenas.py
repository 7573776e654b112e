# SPDX-License-Identifier: Apache-2.0
"""Arenas: one file per job, within the budgets, of its owner alone; and who lives, also through a restart."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from pathlib import Path

import pytest
from fake_shim import MIB, until

from gpuvirt.control.messages import Back
from gpuvirt.errors import ConfigError, ProtocolError
from gpuvirtd.memory.arenas import Arena, arena_size, host_memory
from gpuvirtd.memory.backing import ASKED_MAX, Arenas, Budget
from gpuvirtd.memory.folder import Folder, TrustError, mounts

SHM = Path("/dev/shm")


@pytest.fixture
def folder_of_arenas():
    return Folder.open(SHM)


def ask(arenas, uid, arena, segment, count):
    asked = Back(1, segment, count)
    arenas.check(7, arena, asked)
    return asyncio.run(arenas.back(7, uid, arena, asked))


# ---- the file


def test_an_arena_is_sparse_nameless_and_its_owners_alone(folder_of_arenas):
    arena = Arena.create(folder_of_arenas, *arena_size(1 << 40, 32 * MIB), verify=True)
    found = os.fstat(arena.fd)
    assert (found.st_nlink, found.st_mode & 0o777, found.st_uid) == (0, 0o600, os.getuid())
    assert not os.get_inheritable(arena.fd)
    assert arena.used == 0
    assert found.st_blocks * 512 < 32 * MIB  # its tables, which are there for certain
    assert arena.layout.segments * arena.layout.segment_bytes >= 1 << 40
    arena.close()
    assert arena.used == 0


def test_size_of_an_arena():
    for data, segment in ((1 << 30, 8 * MIB), (3 * MIB, 2 * MIB), (0, 1), (1 << 41, 1 << 40)):
        size, slots = arena_size(data, segment)
        arena = Arena(-1, size, slots, (0, 0), plain=True)
        assert arena.layout.segments * arena.layout.segment_bytes >= max(data, 1)
        assert arena.layout.segment_bytes == max(2 * MIB, min(segment, 128 * MIB))
    assert host_memory() > 0


def test_a_folder_must_be_memory(tmp_path):
    kind = mounts().get(tmp_path.stat().st_dev)
    if kind in ("tmpfs", "hugetlbfs"):
        pytest.skip(f"{tmp_path} is on {kind}")
    with pytest.raises(ConfigError, match="not on tmpfs or hugetlbfs"):
        Folder.open(tmp_path)
    with pytest.raises(ConfigError, match="No such file"):
        Folder.open(tmp_path / "missing")


def test_an_arena_on_huge_pages():
    found = next(
        (line.split() for line in Path("/proc/mounts").read_text().splitlines() if " hugetlbfs " in line), None
    )
    free = int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())
    if found is None or free < 8 or not os.access(found[1], os.W_OK):
        pytest.skip("no hugetlbfs with free pages here")
    arenas = Arenas(Folder.open(Path(found[1])), Budget(1 << 30, 1 << 30))
    arena = arenas.of("j1", 0, 64 * MIB, 2 * MIB)
    arena.lives(3)
    assert ask(arenas, 0, arena, 0, 2).status == 0
    assert arena.used == 4 * MIB
    assert Arena.adopt(os.dup(arena.fd)).alive == 1 << 3
    arenas.close()


# ---- what a process may hand over


def test_only_what_a_daemon_made_is_taken_back(folder_of_arenas, tmp_path):
    arena = Arena.create(folder_of_arenas, *arena_size(64 * MIB, 8 * MIB), verify=False)
    arena.lives(5)
    again = Arena.adopt(os.dup(arena.fd))
    assert (again.key, again.size, again.layout, again.alive) == (arena.key, arena.size, arena.layout, 1 << 5)
    assert again.adopted
    again.close()

    def refused(fd: int, reason: str) -> None:
        with pytest.raises(TrustError, match=reason):
            Arena.adopt(fd)
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)  # it was closed

    refused(os.memfd_create("x"), "not a file on a tmpfs")
    refused(os.open("/dev/null", os.O_RDWR), "not a file on a tmpfs")
    refused(os.pipe()[0], "not a file on a tmpfs")
    refused(os.open(f"/proc/self/fd/{arena.fd}", os.O_RDONLY), "not open for reading and writing")
    named = SHM / f"gpuvirt-test-named-{os.getpid()}"
    try:
        refused(os.open(named, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "no gpuvirtd has made it")
    finally:
        named.unlink()
    other = os.open(SHM, os.O_TMPFILE | os.O_RDWR, 0o600)
    os.ftruncate(other, 1 << 20)
    refused(other, "no arena of this version")
    os.fchmod(arena.fd, 0o644)
    refused(os.dup(arena.fd), "no gpuvirtd has made it")
    arena.close()


def test_an_arena_belongs_to_one_job(folder_of_arenas):
    arenas = Arenas(folder_of_arenas, Budget(64 * MIB, 64 * MIB))
    mine = arenas.of("j1", 1, 16 * MIB, 2 * MIB)
    assert arenas.of("j1", 1, 16 * MIB, 2 * MIB) is mine
    assert arenas.adopt("j1", 1, os.dup(mine.fd)) is mine
    with pytest.raises(TrustError, match="another job"):
        arenas.adopt("j2", 1, os.dup(mine.fd))
    arenas.drop("j1")
    assert mine.fd == -1
    arenas.close()


# ---- budgets


def test_host_memory_is_given_within_the_budgets(folder_of_arenas):
    arenas = Arenas(folder_of_arenas, Budget(40 * MIB, 24 * MIB))
    first, second = arenas.of("j1", 1, 512 * MIB, 8 * MIB), arenas.of("j2", 1, 512 * MIB, 8 * MIB)
    other = arenas.of("j3", 2, 512 * MIB, 8 * MIB)
    assert ask(arenas, 1, first, 0, 2).status == 0
    assert (first.used, arenas.used("j1"), arenas.used_by(1), arenas.used_by()) == (16 * MIB,) * 4
    refused = ask(arenas, 1, second, 0, 2)
    assert (refused.status, refused.missing) == (2, 8 * MIB)
    assert "uid 1" in refused.reason and "host_budget_per_user" in refused.reason
    assert second.used == 0  # all or nothing
    assert ask(arenas, 1, second, 1, 1).status == 0
    assert ask(arenas, 2, other, 0, 2).status == 0
    refused = ask(arenas, 2, other, 2, 1)
    assert (refused.status, refused.missing) == (2, 8 * MIB)
    assert "memory.host_budget)" in refused.reason
    arenas.drop("j1")  # what a job had is free with its end
    assert ask(arenas, 2, other, 2, 1).status == 0
    assert arenas.used_by() == 32 * MIB
    arenas.close()


def test_two_requests_at_once_do_not_get_the_same_room(folder_of_arenas):
    arenas = Arenas(folder_of_arenas, Budget(48 * MIB, 48 * MIB))
    arena = arenas.of("j1", 1, 512 * MIB, 8 * MIB)

    async def both():
        return await asyncio.gather(
            arenas.back(1, 1, arena, Back(1, 0, 4)),
            arenas.back(2, 1, arena, Back(1, 4, 2)),
            arenas.back(3, 1, arena, Back(1, 6, 1)),
        )

    assert [answer.status for answer in asyncio.run(both())] == [0, 0, 2]
    assert (arena.used, arena.charged) == (48 * MIB, 48 * MIB)
    arenas.close()


def test_what_cannot_be_meant_is_refused(folder_of_arenas):
    arenas = Arenas(folder_of_arenas, Budget(1 << 50, 1 << 50))
    arena = arenas.of("j1", 1, 16 * MIB, 8 * MIB)
    for segment, count in ((0, 0), (arena.layout.segments, 1), (0, arena.layout.segments + 1), (2**32 - 1, 2**32 - 1)):
        with pytest.raises(ProtocolError):
            arenas.check(1, arena, Back(1, segment, count))
    assert arenas.missing(1, 1 << 45).reason.endswith("available")
    for _ in range(ASKED_MAX):  # all of them in one turn of the loop, before the first is begun
        arenas.check(1, arena, Back(1, 0, 1))
    arenas.check(2, arena, Back(1, 0, 1))
    with pytest.raises(ProtocolError, match="at once"):
        arenas.check(1, arena, Back(1, 0, 1))
    assert asyncio.run(arenas.back(1, 1, arena, Back(1, 0, 1))).status == 0
    arenas.check(1, arena, Back(1, 0, 1))
    arenas.close()


def test_who_asks_hears_what_went_wrong(folder_of_arenas, monkeypatch):
    arenas = Arenas(folder_of_arenas, Budget(64 * MIB, 64 * MIB))
    arena = arenas.of("j1", 1, 16 * MIB, 8 * MIB)
    with monkeypatch.context() as without_descriptors:

        def refuse(*arguments):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        without_descriptors.setattr(os, "dup", refuse)
        answer = ask(arenas, 1, arena, 0, 1)
    assert (answer.status, answer.missing) == (2, 8 * MIB)
    assert "Too many open files" in answer.reason
    assert (arena.charged, arenas.used_by()) == (0, 0)
    assert ask(arenas, 1, arena, 0, 1).status == 0
    arenas.close()


def test_what_is_on_its_way_is_not_available_any_more(folder_of_arenas, monkeypatch):
    monkeypatch.setattr("gpuvirtd.memory.backing.host_memory", lambda: 40 * MIB)
    arenas = Arenas(folder_of_arenas, Budget(1 << 30, 1 << 30))
    arena, other = arenas.of("j1", 1, 512 * MIB, 8 * MIB), arenas.of("j2", 2, 512 * MIB, 8 * MIB)
    arena.begin_giving(24 * MIB)
    assert arenas.missing(2, 24 * MIB).size == 8 * MIB
    assert arenas.missing(2, 16 * MIB) is None
    arena.end_giving()
    assert ask(arenas, 2, other, 0, 3).status == 0
    arenas.close()


# ---- in the daemon


def join(daemon, shims, job=None, name="job"):
    shim = shims()
    job = job or daemon.create(shim, name)
    assert shim.hello(daemon.socket, job["token"], daemon.uuid()) == "welcome"
    return shim, job


def test_processes_of_a_job_share_one_file_and_no_other_job_sees_it(daemon, shims):
    first, job = join(daemon, shims)
    second, _ = join(daemon, shims, job)
    stranger, _ = join(daemon, shims, name="other")
    views = [shim.arena_view() for shim in (first, second, stranger)]
    assert views[0]["file"] == views[1]["file"] != views[2]["file"]
    assert [view["owner"] for view in views] == [0, 1, 0]
    assert [view["alive"] for view in views] == [[0, 1], [0, 1], [0]]
    assert {(view["links"], view["mode"]) for view in views} == {(0, 0o600)}
    first.back(0, 2)
    until(lambda: first.arena_view()["answers"], what="an answer")
    assert first.arena_view()["answers"] == [(0, 0, "")]
    assert daemon.job(job["job"])["arena"] == 2 * views[0]["segment"]
    first.fill(1, b"shared")
    assert second.read(1, 6) == b"shared"
    first.punch(0)
    assert daemon.job(job["job"])["arena"] == views[0]["segment"]


def test_the_dead_are_told_and_their_numbers_used_again(daemon, shims):
    first, job = join(daemon, shims)
    second, _ = join(daemon, shims, job)
    third, _ = join(daemon, shims, job)
    second.kill()
    until(lambda: first.arena_view()["alive"] == [0, 2], what="the death of number 1")
    assert first.arena_view()["deaths"] == 1
    fourth, _ = join(daemon, shims, job)
    assert fourth.arena_view()["owner"] == 1
    assert third.arena_view()["alive"] == [0, 1, 2]
    # With the last process goes the file: who comes then finds nothing of theirs.
    file = first.arena_view()["file"]
    keeper = shims()
    kept = daemon.create(keeper, "kept")
    only, _ = join(daemon, shims, kept)
    only.back(0, 1)
    until(lambda: only.arena_view()["answers"], what="an answer")
    only.fill(0, b"secret")
    before = only.arena_view()["file"]
    only.kill()
    until(lambda: daemon.job(kept["job"])["arena"] == 0, what="the end of the file")
    late, _ = join(daemon, shims, kept)
    assert late.arena_view()["file"] not in (before, file)
    assert late.read(0, 6) == bytes(6)


def test_a_process_that_starts_another_program_gets_a_number_of_its_own(new_daemon, shims):
    daemon = new_daemon(gpus=2).start()
    shim, job = join(daemon, shims)
    before = shim.arena_view()
    shim.drop()
    until(lambda: "connection_lost" in daemon.log.read_text(), what="the loss of the connection")
    shim.configure(arena=-1)
    assert shim.hello(daemon.socket, job["token"], daemon.uuid(1)) == "welcome"  # on another GPU, as after an exec
    after = shim.arena_view()
    assert (after["file"], after["owner"], after["alive"]) == (before["file"], 1, [1])
    shim.back(0, 1)
    until(lambda: shim.arena_view()["answers"], what="an answer")
    assert shim.arena_view()["answers"] == [(0, 0, "")]


def test_a_refusal_says_why_and_is_an_event_of_the_job(new_daemon, shims):
    daemon = new_daemon(config='[memory]\nreserve = "0"\nhost_budget = "64M"\nhost_budget_per_user = "25%"\n').start()
    greedy, _ = join(daemon, shims, name="greedy")
    shim, job = join(daemon, shims)
    size = shim.arena_view()["segment"]
    greedy.back(0, 16 * MIB // size)
    until(lambda: greedy.arena_view()["answers"], what="an answer")
    assert greedy.arena_view()["answers"] == [(0, 0, "")]
    shim.back(0, 1)
    until(lambda: shim.arena_view()["answers"], what="an answer")
    status, missing, reason = shim.arena_view()["answers"][0]
    assert (status, missing) == (2, size)
    assert "host_budget_per_user" in reason
    assert any(reason in str(event) for event in daemon.admin.call("describe", job=job["job"]).items())
    assert daemon.job(job["job"])["arena"] == 0


def test_a_spoilt_arena_costs_nobody_else_anything(daemon, shims):
    spoiler, job = join(daemon, shims)
    friend, _ = join(daemon, shims, job)
    other, kept = join(daemon, shims, name="other")
    spoiler.spoil()
    friend.kill()
    until(lambda: len(daemon.job(job["job"])["pids"]) == 1, what="the end of the friend")
    spoiler.back(0, 1)
    other.back(0, 1)
    until(lambda: other.arena_view()["answers"], what="an answer")
    assert other.arena_view()["answers"] == [(0, 0, "")]
    assert daemon.job(kept["job"])["state"] != "ended"


def come_back(shim):
    until(lambda: shim.view()["closed"], what="the loss of the connection")
    assert shim.hello(*shim.options_of(), reattach=1) == "welcome"


def test_after_a_restart_the_processes_still_share_their_file(new_daemon, shims):
    daemon = new_daemon().start()
    first, job = join(daemon, shims)
    second, _ = join(daemon, shims, job)
    third, _ = join(daemon, shims, job)
    second.back(0, 1)
    until(lambda: second.arena_view()["answers"], what="an answer")
    second.fill(0, b"swapped")
    before = first.arena_view()
    daemon.stop(kill=True)
    third.kill()
    daemon.start()
    come_back(second)  # another one than the first: its number must not be given away
    late, _ = join(daemon, shims, job)
    assert late.arena_view()["file"] == before["file"]
    assert late.read(0, 7) == b"swapped"
    come_back(first)
    views = [shim.arena_view() for shim in (first, second, late)]
    assert [view["owner"] for view in views] == [0, 1, late.arena_view()["owner"]]
    assert late.arena_view()["owner"] >= 2
    assert views[0]["alive"] == sorted(view["owner"] for view in views)  # and the third is known to be dead
    assert daemon.job(job["job"])["arena"] == before["segment"]


def test_a_newcomer_waits_for_those_who_know_the_arena(new_daemon, shims):
    daemon = new_daemon(config='[memory]\nreserve = "0"\n[time]\nrecovery_grace = "30s"\n').start()
    first, job = join(daemon, shims)
    file = first.arena_view()["file"]
    daemon.stop(kill=True)
    daemon.start()
    newcomer = shims()
    began = time.monotonic()
    answer = newcomer.hello(daemon.socket, job["token"], daemon.uuid())
    assert answer == "closed" and time.monotonic() - began > 0.5  # the shim tries again
    come_back(first)
    assert newcomer.hello(daemon.socket, job["token"], daemon.uuid()) == "welcome"
    assert newcomer.arena_view()["file"] == file


def test_a_wrong_arena_or_number_is_refused(new_daemon, shims):
    daemon = new_daemon().start()
    first, job = join(daemon, shims)
    second, _ = join(daemon, shims, job)
    other, _ = join(daemon, shims, name="other")
    daemon.stop(kill=True)
    daemon.start()
    come_back(first)
    until(lambda: second.view()["closed"], what="the loss of the connection")
    assert "belongs to another process" in second.hello(*second.options_of(), reattach=1, owner=0)
    second.configure(arena=os.open("/dev/null", os.O_RDWR))
    assert "arena" in second.hello(*second.options_of(), reattach=1)
    come_back(other)
