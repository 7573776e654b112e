# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt doctor`: does gpuvirt work here, and if not, what to do."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator

import click

from gpuvirt.cli import findings as machine
from gpuvirt.cli import findings_programs as programs
from gpuvirt.cli.findings import FAIL, OK, WARN, Finding, Patient
from gpuvirt.cli.output import format_option, paint, plain, print_json, wants_colour

ALL: tuple[Callable[[Patient], Finding | None], ...] = (  # later ones use what earlier ones found
    machine.python, machine.libraries, machine.daemon, machine.sockets, machine.driver, machine.nvml,
    programs.versions, programs.strangers, machine.preload, programs.doors, programs.calls,
    machine.compiler, machine.shared_memory, machine.locked_memory,
)  # fmt: skip
_COLOURS = {OK: "green", WARN: "yellow", FAIL: "red"}


@click.command("doctor", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@format_option(("table", "json"))
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=30.0, show_default=True, metavar="S",
              help="Watch COMMAND for so long, then stop it.")  # fmt: skip
@click.argument("words", metavar="[[--] COMMAND...]", nargs=-1, type=click.UNPROCESSED)
def command(output: str, seconds: float, words: tuple[str, ...]) -> int:
    """Check Python, libraries, driver, NVML, daemon, sockets and that the shims really get into programs.

    With COMMAND: also run it, as a job of which nothing stays, and look at what it loads, by which ways it reaches the
    driver, and what goes round the shim. Its output is not shown.

    Exit code 1 when something does not work, or escapes.
    """
    patient = Patient()
    colour = wants_colour(sys.stdout, os.environ)
    findings = []
    for finding in _all(patient, words, seconds):
        findings.append(finding)
        if output == "table":
            print("\n".join(lines(finding, colour)), flush=True)
    if output == "json":
        print_json([dataclasses.asdict(finding) for finding in findings])
    return 1 if any(finding.state == FAIL for finding in findings) else 0


def _all(patient: Patient, words: tuple[str, ...], seconds: float) -> Iterator[Finding]:
    for examine in ALL:
        finding = examine(patient)
        if finding is not None:
            yield finding
    if words:
        from gpuvirt.cli.audit import audit

        yield from audit(patient, words, seconds)


def lines(finding: Finding, colour: bool) -> list[str]:
    """The finding for people: one line, and one with the fix when there is something to fix."""
    state = paint(f"{finding.state:<5}", _COLOURS[finding.state], colour)
    result = [f"{state} {finding.name:<10} {plain(finding.message)}"]
    if finding.state != OK and finding.fix:
        result.append(f"{'':<16} fix: {plain(finding.fix)}")
    return result
