# SPDX-License-Identifier: Apache-2.0
"""What a policy is: the answers to a few questions, from the facts and the time alone.

Policies have no state of their own (all of it is in `facts`), so that they can be changed while jobs run, and so that
equal facts give equal answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gpuvirt.arbitration.facts import Contender, Gpu, Grounds

Rank = tuple[int | str, ...]  # of one policy all ranks have the same shape


class Policy(Protocol):
    """Who gets a GPU that several jobs want. Times are CLOCK_MONOTONIC nanoseconds."""

    name: str  # as configuration and command line know it
    summary: str  # one line, for people
    heeds: frozenset[str]  # of "weight", "priority", "tier", "deadline": what of a job makes a difference

    def admits(self, gpu: Gpu, contender: Contender) -> str:
        """Empty, or why this contender is not offered the GPU now, in words. Who holds it is always admitted."""

    def rank(self, gpu: Gpu, contender: Contender, now: int) -> Rank:
        """Its place among those that want the GPU: the smallest is next.

        The one that holds the GPU is ranked too, when its quantum is over: it goes on if it is still the smallest.
        """

    def grounds(self, gpu: Gpu, contender: Contender, now: int) -> Grounds:
        """On what grounds it gets the GPU, for another quantum. Asked once, at the moment when it does."""

    def revoke_at(self, gpu: Gpu, holder: Contender, waiter: Contender, now: int) -> int | None:
        """From when on `waiter`, the first of those that wait, may have the GPU although the quantum of `holder` is
        not over; None: it waits for its end.

        Asked again at every decision; a time in the past means now. A holder that is not idle keeps its minimum run
        in any case, and any holder its whole quantum if it has it as a floor.
        """

    def says(self, gpu: Gpu, contender: Contender, now: int) -> str:
        """What counts here of what the job asked for, and what that means for its wait now: words for people."""
