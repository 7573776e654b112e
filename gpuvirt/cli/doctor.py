# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt doctor`: does gpuvirt work here, and if not, what to do."""

from __future__ import annotations

import dataclasses
import os
import sys

import click

from gpuvirt.cli.findings import ALL, FAIL, OK, WARN, Finding, Patient
from gpuvirt.cli.output import format_option, paint, plain, print_json, wants_colour

_COLOURS = {OK: "green", WARN: "yellow", FAIL: "red"}


@click.command("doctor")
@format_option(("table", "json"))
def command(output: str) -> int:
    """Check Python, libraries, driver, NVML, daemon, sockets and that the shim really gets into programs.

    Exit code 1 when something does not work.
    """
    patient = Patient()
    colour = wants_colour(sys.stdout, os.environ)
    findings = []
    for examine in ALL:
        finding = examine(patient)
        if finding is None:
            continue
        findings.append(finding)
        if output == "table":
            print("\n".join(lines(finding, colour)), flush=True)
    if output == "json":
        print_json([dataclasses.asdict(finding) for finding in findings])
    return 1 if any(finding.state == FAIL for finding in findings) else 0


def lines(finding: Finding, colour: bool) -> list[str]:
    """The finding for people: one line, and one with the fix when there is something to fix."""
    state = paint(f"{finding.state:<5}", _COLOURS[finding.state], colour)
    result = [f"{state} {finding.name:<10} {plain(finding.message)}"]
    if finding.state != OK and finding.fix:
        result.append(f"{'':<16} fix: {plain(finding.fix)}")
    return result
