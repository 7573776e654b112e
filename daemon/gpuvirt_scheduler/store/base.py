# SPDX-License-Identifier: Apache-2.0
"""What a store is: all state in one place, changed by its one leader in whole transactions.

    store = await open_store("sqlite:///var/lib/gpuvirt/scheduler.db", name)
    term = await store.lead()               # waits until this scheduler leads
    saved = await store.load()
    revision = await store.commit(term, Changes(puts={"jobs/j1": b"..."}, deletes=frozenset()))

Keys: "jobs/ID", "nodes/NAME", "queues/NAME", "requests/ID", "meta/...". Values are JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gpuvirt.errors import GpuvirtError


class NotLeader(GpuvirtError):
    """Another scheduler leads, or may: nothing was committed, and nothing will be by this one."""


class StoreAway(GpuvirtError):
    """The store does not answer. Whether the last commit was made is not known: load again before the next."""


@dataclass(frozen=True, slots=True)
class Changes:
    """One transaction."""

    puts: Mapping[str, bytes] = field(default_factory=dict)
    deletes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Saved:
    """All that is in a store at one revision."""

    values: Mapping[str, bytes]
    revision: int


class Store(Protocol):
    """State with one leader. All of it may raise StoreAway."""

    async def lead(self) -> int:
        """Waits until this scheduler is the leader; its term, higher than any before it."""

    async def lost(self) -> str:
        """Returns, with the reason, when this scheduler does not lead any more or cannot know that it does."""

    async def leader(self) -> str:
        """Who leads now, as it has called itself; empty: nobody."""

    async def load(self) -> Saved:
        """Everything."""

    async def commit(self, term: int, changes: Changes) -> int:
        """All of it or nothing; the new revision. Raises NotLeader where `term` is not that of the leader."""

    async def close(self) -> None:
        """Gives up leadership, if it is had, and ends."""
