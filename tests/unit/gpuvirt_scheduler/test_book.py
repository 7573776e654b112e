# SPDX-License-Identifier: Apache-2.0
"""What a leader writes down is what the next one reads."""

from __future__ import annotations

from dataclasses import replace

from gpuvirt.scheduler.state import (
    Demand,
    Gpu,
    Job,
    Member,
    Node,
    NodeState,
    Phase,
    Program,
    Queue,
    Resources,
    Rules,
    Served,
    Spec,
)
from gpuvirt_scheduler import book as books
from gpuvirt_scheduler.book import Book
from gpuvirt_scheduler.store.base import Saved

SPEC = Spec("train", "org/team", "ann", "premium", Program(("python", "train.py"), {"A": "b"}, "/home/ann"), Demand(2))
SERVED = Served(9.0, ((1.0, 2.0, 3.0),))
JOB = Job("c1", "r1", SPEC, 5.0, Phase.RUNNING, members=(Member(0, "a", ("g0", "g1"), 3),), served=SERVED)
NODE = Node("a", "a:1", (Gpu("g0", 0, "H100", 80 << 30),), 64_000, 1 << 40, 1 << 39, {"rack": "r1"}, NodeState.READY)


def written(book: Book, before: dict[str, bytes] | None = None) -> dict[str, bytes]:
    changes = book.take_changes()
    assert changes is not None
    return {key: value for key, value in {**(before or {}), **changes.puts}.items() if key not in changes.deletes}


def test_everything_comes_back_as_it_was() -> None:
    book = Book(Rules())
    book.put_job(JOB)
    book.put_node(NODE)
    book.put_queue(Queue("org/team", Resources(4000), weight=3))
    assert book.next_name() == "c1"
    again = Book(Rules())
    again.read(Saved(written(book), 1))
    assert (again.jobs, again.nodes, again.queues, again.number) == (book.jobs, book.nodes, book.queues, 1)
    assert again.requests == {"r1": "c1"} and again.next_name() == "c2"


def test_only_what_has_changed_is_written() -> None:
    book = Book(Rules())
    book.put_job(JOB)
    assert book.take_changes() is not None
    book.put_job(replace(JOB))
    assert book.take_changes() is None
    book.put_job(replace(JOB, reason="waits"))
    changes = book.take_changes()
    assert changes is not None and list(changes.puts) == ["jobs/c1"]


def test_jobs_that_have_ended_are_no_part_of_a_snapshot_and_the_oldest_are_forgotten() -> None:
    book = Book(Rules())
    kept, books.KEPT = books.KEPT, 2
    try:
        stored: dict[str, bytes] = {}
        for number in range(4):
            book.put_job(
                replace(JOB, id=f"c{number}", request=f"r{number}", phase=Phase.SUCCEEDED, ended=float(number))
            )
            stored = written(book, stored)
    finally:
        books.KEPT = kept
    assert sorted(book.jobs) == ["c2", "c3"] == sorted(key.removeprefix("jobs/") for key in stored)
    assert not book.snapshot().jobs and "r0" not in book.requests
