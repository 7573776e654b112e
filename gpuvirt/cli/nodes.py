# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt nodes`: the hosts of a cluster; empties one for maintenance and takes it into use again."""

from __future__ import annotations

from typing import Any

import click

from gpuvirt.cli import cluster
from gpuvirt.cli.output import Column, format_option, show
from gpuvirt.errors import UsageError

COLOURS = {"ready": "green", "unknown": "yellow", "lost": "red"}
COLUMNS = (
    Column("HOST", lambda row: str(row["node"])),
    Column("STATE", lambda row: str(row["state"]), colour=lambda row: COLOURS.get(str(row["state"]))),
    Column("GPUS", lambda row: f"{row['gpus_used']:g}/{row['gpus']}", right=True),
    Column("TYPE", lambda row: ",".join(sorted(set(row["types"]))) or "-", shrink=10),
    Column("CPUS", lambda row: f"{row['cpus']:g}", right=True),
    Column("REASON", lambda row: str(row["reason"]), shrink=10),
)


@click.command("nodes")
@click.argument("host", required=False)
@click.option("--drain", is_flag=True, help="Empty HOST: nothing new is started there, what runs there leaves.")
@click.option("--undrain", is_flag=True, help="Take HOST into use again.")
@click.option("--reason", default="", help="Of a drain, for people.")
@click.option(
    "--patience",
    default=300.0,
    show_default=True,
    metavar="S",
    help="Then its jobs are stopped and begin anew elsewhere.",
)
@format_option()
@cluster.scheduler_options
def command(
    scheduler: cluster.Scheduler, host: str | None, drain: bool, undrain: bool, reason: str, patience: float,
    output: str,
) -> None:  # fmt: skip
    """Show the hosts of the cluster, or empty HOST, or take it into use again."""
    pb = scheduler.pb
    if drain and undrain:
        raise UsageError("--drain and --undrain", "choose one")
    if (drain or undrain) and host is None:
        raise UsageError("which host?", "gpuvirt nodes HOST --drain")
    if drain or undrain:
        request = pb.DrainNodeRequest(
            request=cluster.request_id(), node=host, draining=drain, reason=reason, patience_seconds=patience
        )
        scheduler.call("DrainNode", request)
    rows = [_row(pb, node) for node in scheduler.call("Nodes", pb.NodesRequest(name=host or "")).nodes]
    if host is not None and not rows:
        raise UsageError(f"there is no host '{host}'", "see: gpuvirt nodes")
    show(rows, output, COLUMNS, COLUMNS, "the scheduler knows no host; see [[hosts]] of its configuration")


def _row(pb: Any, node: Any) -> dict[str, Any]:
    return {
        "node": node.name,
        "address": node.address,
        "state": str(pb.Node.State.Name(node.state)).lower(),
        "gpus": len(node.gpus),
        "gpus_used": node.used.gpu_thousandths / 1000,
        "types": [gpu.type for gpu in node.gpus],
        "cpus": node.total.cpu_thousandths / 1000,
        "domains": dict(node.domains),
        "reason": node.reason,
    }
