# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt limit JOB`: shows or changes how much memory a job may have, also while it runs."""

from __future__ import annotations

from typing import Any

import click

from gpuvirt.cli import connection
from gpuvirt.cli.completion import complete_job
from gpuvirt.cli.output import format_option, print_json
from gpuvirt.errors import UsageError
from gpuvirt.units import format_size, parse_size

_NONE = ("none", "off", "0")


def size_or_none(text: str) -> int | None:
    """Bytes; None for "none". Raises UsageError."""
    return None if text.lower() in _NONE else parse_size(text)


@click.command("limit")
@click.argument("job", shell_complete=complete_job)
@click.option("--memory", metavar="SIZE", help="Device memory that it may allocate in all; none: up to the device.")
@click.option("--soft", metavar="SIZE", help="What it has on the device beyond this is swapped first; or none.")
@click.option("--reserve", metavar="SIZE", help="Set aside for it, so that it can always allocate so much; or none.")
@format_option(("table", "json"))
def command(job: str, memory: str | None, soft: str | None, reserve: str | None, output: str) -> None:
    """Show the limits of JOB (its name, its id j3 or its number 3), or change them while it runs.

    Nothing that is allocated is taken away: below that a limit means that nothing new is allocated until enough is
    freed.
    """
    if not 0 < len(job) <= 64:
        raise UsageError("that is no name of a job", "see: gpuvirt ps")
    given = {"memory": memory, "soft": soft, "reserve": reserve}
    sizes = {name: size_or_none(text) for name, text in given.items() if text is not None}
    answer = connection.connect().call("limit", job=job, **sizes)
    if output == "json":
        print_json(answer)
        return
    print("\n".join(lines(answer)))


def lines(answer: dict[str, Any]) -> list[str]:
    """What the daemon answered, for people."""
    limits = answer.get("limits", {})

    def shown(value: Any, otherwise: str) -> str:
        return format_size(value) if value else otherwise

    head = (
        f"{limits.get('job')}: memory {shown(limits.get('memory'), 'up to the device')}, "
        f"soft {shown(limits.get('soft'), 'none')}, reserve {shown(limits.get('reserve'), 'none')}"
    )
    return [head, *(f"note: {note}" for note in answer.get("notes", []))]
