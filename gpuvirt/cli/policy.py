# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt policy [GPU] [NAME]`: shows or changes how GPUs are shared, also while jobs run."""

from __future__ import annotations

import click

from gpuvirt.cli import connection
from gpuvirt.cli.output import Column, format_option, show
from gpuvirt.errors import UsageError

ALL = "all"
COLUMNS = (
    Column("GPU", lambda row: str(row.get("gpu", "-")), right=True),
    Column("POLICY", lambda row: str(row.get("policy", "-")), colour=lambda row: "bold"),
    Column("CONFIGURED", lambda row: str(row.get("configured", "-"))),
    Column("OWNER", lambda row: str(row.get("owner") or "-")),
    Column("WHAT IT DOES", lambda row: str(row.get("summary", "-")), shrink=12),
)


def complete_name(context: click.Context | None, parameter: click.Parameter | None, incomplete: str) -> list[str]:
    """Names of policies."""
    from gpuvirt.arbitration.policies import POLICIES

    return [name for name in (*POLICIES, "configured") if name.startswith(incomplete)]


@click.command("policy")
@click.argument("gpu", metavar="[GPU|all]", required=False)
@click.argument("name", metavar="[NAME]", required=False, shell_complete=complete_name)
@format_option()
def command(gpu: str | None, name: str | None, output: str) -> None:
    """Show by which policy GPUs are shared, or share GPU (its index, its UUID, or all) by NAME from now on.

    fair: by weight, every user alike. priority: --priority high first, a floor for the others. deadline: what is due
    first (--deadline). tiers: guaranteed parts of the time (--tier). exclusive: one job after the other. configured:
    as the configuration of gpuvirtd says. A change outlives gpuvirtd; it is for root and the user of gpuvirtd.
    """
    if gpu is not None and not 0 < len(gpu) <= 64:
        raise UsageError("that is no GPU", "see: gpuvirt gpus")
    if name is None and gpu in complete_name(None, None, ""):
        raise UsageError(f"'{gpu}' is no GPU", f"for every GPU: gpuvirt policy {ALL} {gpu}")
    chosen = None if gpu in (None, ALL) else gpu
    rows = connection.connect().call("policy", gpu=chosen, name=name).get("policies", [])
    show(rows, output, COLUMNS, COLUMNS, "the daemon has no GPU; see 'gpuvirt doctor'")
