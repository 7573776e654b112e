# SPDX-License-Identifier: Apache-2.0
"""What every store keeps to, and what a file may suffer."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gpuvirt.errors import ConfigError
from gpuvirt_scheduler.store.base import Changes, NotLeader, Store, StoreAway
from gpuvirt_scheduler.store.memory import MemoryStore, Shared
from gpuvirt_scheduler.store.sqlite import SqliteStore

Maker = Callable[[str], Store]


@pytest.fixture(params=["memory", "sqlite"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Callable[[Maker], Awaitable[None]]], None]:
    """Runs a test with a maker of stores that see the same state."""

    def begin(test: Callable[[Maker], Awaitable[None]]) -> None:
        async def inside() -> None:
            shared = Shared()
            made: list[Store] = []

            def make(name: str) -> Store:
                store: Store
                store = MemoryStore(shared, name) if request.param == "memory" else SqliteStore(tmp_path / "s.db", name)
                made.append(store)
                return store

            try:
                await asyncio.wait_for(test(make), 30)
            finally:
                for store in made:
                    await store.close()

        asyncio.run(inside())

    return begin


def test_what_is_committed_is_there(run: Callable[[Callable[[Maker], Awaitable[None]]], None]) -> None:
    async def test(make: Maker) -> None:
        store = make("one")
        assert (await store.load()).values == {}
        term = await store.lead()
        first = await store.commit(term, Changes({"jobs/a": b"1", "jobs/b": b"2"}))
        second = await store.commit(term, Changes({"jobs/a": b"3"}, frozenset({"jobs/b", "jobs/none"})))
        saved = await store.load()
        assert (saved.values, saved.revision) == ({"jobs/a": b"3"}, second) and second > first

    run(test)


def test_one_leads_at_a_time_with_a_higher_term_each_time(
    run: Callable[[Callable[[Maker], Awaitable[None]]], None],
) -> None:
    async def test(make: Maker) -> None:
        one, two = make("one"), make("two")
        term = await one.lead()
        assert await two.leader() == "one"
        waits = asyncio.create_task(two.lead())
        await asyncio.sleep(0.3)
        assert not waits.done()
        await one.close()
        assert await one.lost()
        later = await waits
        assert later > term and await two.leader() == "two"

    run(test)


def test_who_does_not_lead_commits_nothing(run: Callable[[Callable[[Maker], Awaitable[None]]], None]) -> None:
    async def test(make: Maker) -> None:
        store = make("one")
        term = await store.lead()
        await store.commit(term, Changes({"a": b"1"}))
        for wrong in (term - 1, term + 1, 0):
            with pytest.raises(NotLeader):
                await store.commit(wrong, Changes({"a": b"2"}))
        assert (await store.load()).values == {"a": b"1"}

    run(test)


def test_nobody_leads_before_anybody_has(run: Callable[[Callable[[Maker], Awaitable[None]]], None]) -> None:
    async def test(make: Maker) -> None:
        assert await make("one").leader() == ""
        with pytest.raises(NotLeader):
            await make("two").commit(1, Changes({"a": b"1"}))

    run(test)


LEADER = """
import asyncio, sys
from pathlib import Path
from gpuvirt_scheduler.store.base import Changes
from gpuvirt_scheduler.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(Path(sys.argv[1]), "child")
    term = await store.lead()
    print(term, flush=True)
    count = 0
    while True:
        count += 1
        await store.commit(term, Changes({"a": str(count).encode(), "b": str(count).encode()}))
        print(count, flush=True)

asyncio.run(main())
"""


def test_a_killed_leader_leaves_whole_transactions_and_its_place(tmp_path: Path) -> None:
    async def takes_over() -> None:
        store = SqliteStore(tmp_path / "s.db", "next")
        saved = await store.load()
        assert saved.values["a"] == saved.values["b"]
        assert int(saved.values["a"]) >= said, "something that was told is not there"
        began = time.monotonic()
        assert await store.lead() > 1
        assert time.monotonic() - began < 5
        await store.close()

    child = subprocess.Popen([sys.executable, "-c", LEADER, tmp_path / "s.db"], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(20)]
        said = int(lines[-1])
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close() if child.stdout is not None else None
    asyncio.run(takes_over())


def test_a_leader_whose_lock_was_taken_away_commits_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        old = SqliteStore(tmp_path / "s.db", "old")
        term = await old.lead()
        os.unlink(tmp_path / "s.db.lock")  # somebody tidies up
        new = SqliteStore(tmp_path / "s.db", "new")
        await new.commit(await new.lead(), Changes({"a": b"new"}))
        with pytest.raises(NotLeader, match="new leads"):
            await old.commit(term, Changes({"a": b"old"}))
        assert "new leads" in await asyncio.wait_for(old.lost(), 1)
        assert (await new.load()).values == {"a": b"new"}
        waits = asyncio.create_task(old.lead())
        await asyncio.sleep(0.5)
        assert not waits.done(), "two that lead in turn, each with a lock of its own"
        await new.close()
        assert await asyncio.wait_for(waits, 5) > 2
        await old.close()

    asyncio.run(test())


def test_a_damaged_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"no database at all" * 100)
    before = path.read_bytes()

    async def test() -> None:
        with pytest.raises(ConfigError, match="put back a copy"):
            SqliteStore(path, "one")

    asyncio.run(test())
    assert path.read_bytes() == before


def test_a_store_of_a_later_version_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "s.db")
    database.execute("PRAGMA user_version=99")
    database.close()

    async def test() -> None:
        with pytest.raises(ConfigError, match="schema 99"):
            SqliteStore(tmp_path / "s.db", "one")

    asyncio.run(test())


def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path: Path) -> None:
    async def test() -> None:
        store = SqliteStore(tmp_path / "s.db", "one")
        term = await store.lead()
        await store.commit(term, Changes({"a": b"1"}))
        store._thread.submit(store._database.execute, "PRAGMA max_page_count=8").result()
        with pytest.raises(StoreAway, match="full"):
            await store.commit(term, Changes({"a": b"2", "big": bytes(1 << 20)}))
        assert (await store.load()).values == {"a": b"1"}
        store._thread.submit(store._database.execute, "PRAGMA max_page_count=100000").result()
        await store.commit(term, Changes({"a": b"3"}))
        assert (await store.load()).values == {"a": b"3"}
        await store.close()

    asyncio.run(test())
