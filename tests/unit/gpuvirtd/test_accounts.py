# SPDX-License-Identifier: Apache-2.0
"""Bills against the truth: whatever jobs and daemons do, each ns of a GPU is on one job's bill, once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from billed_world import GPU, World

from gpuvirt.arbitration.facts import MILLISECOND, SECOND
from gpuvirtd.accounts.account import Account, Sums

MINUTE = 60 * SECOND


def run(folder: Path, scenario: Callable[[World], Awaitable[None]]) -> None:
    async def inside() -> World:
        world = World(folder)
        world.books.begin()
        await scenario(world)
        world.books.close()
        return world

    asyncio.run(inside()).bury()


def act(world: World, chance: random.Random) -> None:
    """Something happens to somebody."""
    job = chance.choice(list(world.jobs.values()))
    contender = world.gpu.contenders.get(job.id)
    if contender is None:
        world.come_back(job)
    elif not all(client.drained for client in contender.clients.values()) and not contender.may_launch:
        world.drained(job)
    else:
        chance.choice([world.want, world.want, world.idle])(job)


async def check(world: World) -> None:
    billed = await world.billed()
    for key, truth in world.truth.items():
        sums = billed.get(key, Sums())
        assert (sums.held, sums.alone, sums.wait) == (truth["held"], truth["alone"], truth["wait"]), key
    assert not world.errors


@pytest.mark.parametrize("seed", range(8))
def test_every_nanosecond_is_billed_once(tmp_path: Path, seed: int) -> None:
    async def scenario(world: World) -> None:
        chance = random.Random(seed)
        for _ in range(400):
            if len(world.jobs) < 3:
                world.start(uid=1000 + chance.randrange(2))
            act(world, chance)
            world.later(chance.choice([0, 1, 150_000, MILLISECOND, 7 * MILLISECOND, 30 * MILLISECOND, MINUTE]))
            if chance.random() < 0.02:
                world.kill(chance.choice(list(world.jobs.values())))
            if chance.random() < 0.1:
                world.books.tick(world.clock.now())
                await asyncio.sleep(0)
        await check(world)
        billed = await world.billed()
        for key, contender in world.gpu.contenders.items():  # what the arbiter itself has counted
            running = world.clock.now() - contender.charge_from if contender.charge_from is not None else 0
            sums = billed.get(key, Sums())
            assert contender.held_ns + contender.open_ns + running == sums.held + sums.alone
            assert (sums.switches, sums.waits) == (contender.switches, contender.waits)
            assert (sums.overruns, sums.overrun) == (contender.overruns, contender.overrun_ns)
            assert sums.busy == world.truth[key]["busy"]
        assert any(sums.overrun for sums in billed.values())

    run(tmp_path, scenario)


@pytest.mark.parametrize("seed", range(8))
def test_a_daemon_that_is_killed_loses_nothing(tmp_path: Path, seed: int) -> None:
    """At any point, also while the database is being written, and again before all are back."""

    async def scenario(world: World) -> None:
        chance = random.Random(seed)
        for _ in range(3):
            world.start()
        for _ in range(300):
            act(world, chance)
            world.later(chance.choice([0, 150_000, 3 * MILLISECOND, 30 * MILLISECOND, 20 * SECOND]))
            if chance.random() < 0.1:
                world.books.tick(world.clock.now())
                await asyncio.sleep(chance.choice([0, 0.001]))
            if chance.random() < 0.1:
                world.crash(down=chance.choice([0, MILLISECOND, 5 * SECOND, 3 * MINUTE]))
        await check(world)

    run(tmp_path, scenario)


def test_a_job_that_dies_while_no_daemon_looks_pays_until_the_last_beat(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        job, other = world.start(), world.start()
        world.want(job)
        world.want(other)
        world.later(5 * MILLISECOND)
        world.books.tick(world.clock.now())
        before = dict(world.truth[job.id]), dict(world.truth[other.id])
        world.now_is = {}  # nobody has anything any more
        del world.jobs[job.id]
        world.crash(down=10 * MINUTE)
        billed = await world.billed()
        assert billed[job.id].held == before[0]["held"] == 5 * MILLISECOND
        world.kill(other)  # after the restart: the new daemon sees it die
        billed = await world.billed()
        assert billed[other.id].wait == before[1]["wait"] + 10 * MINUTE

    run(tmp_path, scenario)


def test_after_a_boot_all_that_was_open_ended_with_the_last_beat(tmp_path: Path, monkeypatch) -> None:
    async def scenario(world: World) -> None:
        job = world.start()
        world.want(job)
        world.later(3 * SECOND)
        world.books.tick(world.clock.now())
        monkeypatch.setattr("gpuvirtd.accounts.books.boot_id", lambda: "another boot")
        monkeypatch.setattr("gpuvirtd.accounts.live.boot_id", lambda: "another boot")
        world.wall_step = 2 * 3600 * SECOND
        world.clock.time = 5 * SECOND  # it begins anew
        world.crash()
        billed = await world.billed()
        assert billed[job.id] == Sums(alone=3 * SECOND, busy=3 * SECOND // 2, switches=1, waits=1)
        rows = world.books.database.bills(0, 1e12, "job")
        assert rows[0]["last"] <= 1_800_000_060, "in the minute in which it was used"

    run(tmp_path, scenario)


def test_a_minute_has_what_was_used_in_it(tmp_path: Path) -> None:
    """A turn that lasts over the end of minutes is on both sides of them; a question may fall into it."""

    async def scenario(world: World) -> None:
        job = world.start()
        world.later(30 * SECOND - world.clock.now() % MINUTE)  # half a minute has passed
        world.want(job)
        world.later(2 * MINUTE)
        await world.books.bills(0, None, "gpu")
        base = 1_800_000_000
        database = world.books.database
        parts = [database.bills(base + 60 * n, base + 60 * n + 60, "gpu") for n in range(3)]
        assert [part[0]["alone"] for part in parts] == [30 * SECOND, MINUTE, 30 * SECOND]
        assert [part[0]["busy"] for part in parts] == [30 * SECOND, 30 * SECOND, 0], "never more than the time passed"
        answer = await world.books.bills(base, None, "gpu")
        assert answer["rows"][0]["alone_s"] == 120 and answer["rows"][0]["gpu"] == 0
        assert answer["rows"][0]["uuid"] == GPU

    run(tmp_path, scenario)


def test_tenants_pay_for_all_their_jobs(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for uid, seconds in ((7, 1), (8, 5), (7, 2)):
            job = world.start(uid)
            world.want(job)
            world.later(seconds * SECOND)
            world.kill(job)
        rows = (await world.books.bills(0, None, "tenant"))["rows"]
        assert [(row["user"], row["jobs"], row["alone_s"], row["gpu_s"]) for row in rows] == [
            ("u8", 1, 5, 2.5),
            ("u7", 2, 3, 1.5),
        ]
        jobs = (await world.books.bills(0, None, "job"))["rows"]
        assert [(row["job"], row["ended"]) for row in jobs] == [("j2", True), ("j3", True), ("j1", True)]

    run(tmp_path, scenario)


def test_a_database_that_cannot_be_written_costs_nothing(tmp_path: Path, monkeypatch) -> None:
    import sqlite3

    from gpuvirt.errors import RefusedError

    async def scenario(world: World) -> None:
        def full(entries: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        job = world.start()
        world.want(job)
        with monkeypatch.context() as broken:
            broken.setattr(world.books.database, "enter", full)
            for _ in range(3):
                world.later(MINUTE)
                world.books.tick(world.clock.now())
                await asyncio.sleep(0.005)
            with pytest.raises(RefusedError, match="disk is full"):
                await world.books.bills(0, None, "tenant")
            world.kill(job)
            assert world.errors == ["accounts_not_written"], "said once"
        world.errors.clear()
        await check(world)
        minutes = [world.books.database.bills(1_800_000_000 + 60 * n, 1_800_000_060 + 60 * n, "job") for n in range(4)]
        assert [rows[0]["alone"] for rows in minutes] == [59 * SECOND, MINUTE, MINUTE, SECOND]

    run(tmp_path, scenario)


def test_nobody_is_busier_than_the_time_that_passed(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        job = world.start()
        world.want(job)
        for claim in (10 * SECOND, -(10 * SECOND), 10**17):
            world.later(SECOND)
            job.busy_ns += claim
            world.books.tick(world.clock.now())
        billed = await world.billed()
        assert billed[job.id].alone == 3 * SECOND and billed[job.id].busy == 2 * SECOND

    run(tmp_path, scenario)


class Killed(Exception):
    """The daemon gets no further."""


@pytest.mark.parametrize("seed", range(4))
def test_killed_between_two_stores_of_one_hand_over(tmp_path: Path, seed: int) -> None:
    """One account is written, the other is not: no time is on two bills."""

    async def scenario(world: World) -> None:
        chance = random.Random(seed)
        began, kills = world.clock.now(), 0
        for _ in range(3):
            world.start()
        for _ in range(60):
            left, put = chance.randrange(1, 12), world.books.live.put

            def limited(account: Account, put: Callable[[Account], None] = put) -> None:
                nonlocal left
                left -= 1
                if left < 0:
                    raise Killed
                put(account)

            world.books.live.put = limited  # type: ignore[method-assign]
            try:
                for _ in range(40):
                    act(world, chance)
                    world.later(chance.choice([150_000, 3 * MILLISECOND, 30 * MILLISECOND]))
            except Killed:
                kills += 1
            world.crash(down=SECOND)
        billed = await world.billed()
        assert kills > 20
        assert sum(sums.held + sums.alone for sums in billed.values()) <= world.clock.now() - began
        assert all(sums.wait <= world.clock.now() - began for sums in billed.values())

    run(tmp_path, scenario)
