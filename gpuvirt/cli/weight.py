# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt weight JOB [N]`: shows or changes in what proportion a job gets GPU time, also while it runs."""

from __future__ import annotations

from typing import Any

import click

from gpuvirt.cli import connection
from gpuvirt.cli.completion import complete_job
from gpuvirt.cli.output import format_option, print_json
from gpuvirt.errors import UsageError

LIMIT = 1000


@click.command("weight")
@click.argument("job", shell_complete=complete_job)
@click.argument("weight", metavar="[N]", type=click.IntRange(1, LIMIT), required=False)
@format_option(("table", "json"))
def command(job: str, weight: int | None, output: str) -> None:
    """Show the weight of JOB (its name, its id j3 or its number 3), or change it to N from now on.

    A job of weight 2 gets twice as much GPU time as one of weight 1 of the same user, while both want it.
    """
    if not 0 < len(job) <= 64:
        raise UsageError("that is no name of a job", "see: gpuvirt ps")
    answer = connection.connect().call("weight", job=job, weight=weight)
    if output == "json":
        print_json(answer)
        return
    print("\n".join(lines(answer)))


def lines(answer: dict[str, Any]) -> list[str]:
    """What the daemon answered, for people."""
    standing = answer.get("standing", {})
    return [
        f"{standing.get('job')}: weight {standing_text(standing)}",
        *(f"note: {note}" for note in answer.get("notes", [])),
    ]


def standing_text(job: Any) -> str:
    """ "2, priority high": the weight of a job, and what else of it policies heed."""
    parts = [str(job.get("weight"))]
    if job.get("priority") not in (None, "normal"):
        parts.append(f"priority {job['priority']}")
    if job.get("tier"):
        parts.append(f"tier {job['tier']}")
    if job.get("deadline_s"):
        parts.append(f"deadline {1000 * job['deadline_s']:g} ms")
    return ", ".join(parts)
