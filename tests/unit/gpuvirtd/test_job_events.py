# SPDX-License-Identifier: Apache-2.0
"""The ring of what happened to a job."""

from __future__ import annotations

from gpuvirtd.job_events import KEPT, KEPT_REFUSED, JobEvents, Kind


def test_the_same_again_only_counts_and_moves_to_the_end() -> None:
    times = iter(float(n) for n in range(100))
    events = JobEvents(lambda: next(times))
    assert events.add(Kind.REFUSED, "5 MiB: above the limit", 7)
    assert events.add(Kind.CLIENT, "hello", 7)
    assert events.add(Kind.REFUSED, "5 MiB: above the limit", 8)  # another process
    assert not events.add(Kind.REFUSED, "5 MiB: above the limit", 7)
    assert [(row["kind"], row["pid"], row["count"], row["first"], row["at"]) for row in events.rows()] == [
        ("client", 7, 1, 1.0, 1.0),
        ("refused", 8, 1, 2.0, 2.0),
        ("refused", 7, 2, 0.0, 3.0),
    ]
    assert [event.text for event in events.of(Kind.CLIENT)] == ["hello"]


def test_it_is_a_ring() -> None:
    events = JobEvents()
    for number in range(KEPT + 5):
        events.add(Kind.MEMORY, str(number))
    assert len(events) == KEPT
    assert next(event.text for event in events) == "5"


def test_refusals_do_not_push_everything_else_out() -> None:
    events = JobEvents()
    events.add(Kind.LIMIT, "limits changed")
    for number in range(100):
        events.add(Kind.REFUSED, f"{number} MiB")
    assert [event.text for event in events.of(Kind.REFUSED)] == [f"{n} MiB" for n in range(100 - KEPT_REFUSED, 100)]
    assert len(events.of(Kind.LIMIT)) == 1
