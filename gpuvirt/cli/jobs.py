# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt jobs [JOB]`: the jobs of a cluster, where they are, and why they wait."""

from __future__ import annotations

import click

from gpuvirt.cli import cluster
from gpuvirt.cli.output import Column, Row, format_option, plain, print_json, show

ENDED = ("succeeded", "failed", "cancelled")
COLOURS = {"running": "green", "pending": "yellow", "suspended": "yellow", "failed": "red"}


def _hosts(row: Row) -> str:
    nodes = [member["node"] for member in row["members"]]
    counts = {node: nodes.count(node) for node in nodes}
    return ",".join(node if count == 1 else f"{node}*{count}" for node, count in counts.items()) or "-"


COLUMNS = (
    Column("JOB", lambda row: str(row["job"])),
    Column("NAME", lambda row: str(row["name"]), shrink=8),
    Column("QUEUE", lambda row: str(row["queue"]), shrink=6),
    Column("TIER", lambda row: str(row["tier"])),
    Column("GPUS", lambda row: f"{row['gpus'] * row['members_min']:g}", right=True),
    Column("STATE", lambda row: str(row["state"]), colour=lambda row: COLOURS.get(str(row["state"]))),
    Column("HOSTS", _hosts, shrink=8),
    Column("HAD", lambda row: f"{row['gpu_fraction']:.0%}", right=True),
    Column("REASON", lambda row: str(row["reason"]), shrink=10),
)


@click.command("jobs")
@click.argument("job", required=False)
@click.option("-a", "--all", "everything", is_flag=True, help="Those that have ended, too.")
@click.option("--queue", default="", help="Only of this queue.")
@format_option()
@cluster.scheduler_options
def command(scheduler: cluster.Scheduler, job: str | None, everything: bool, queue: str, output: str) -> None:
    """Show the jobs of the cluster, or why JOB is where it is and which hosts would nearly have done.

    HAD: the part of the time in which it wanted GPUs that it had them, over the window of its tier.
    """
    rows = [cluster.row_of(scheduler, one) for one in scheduler.jobs(queue=queue)]
    if job is None:
        shown = [row for row in rows if everything or row["state"] not in ENDED]
        show(shown, output, COLUMNS, COLUMNS, "no job waits or runs; see: gpuvirt jobs --all")
        return
    why = scheduler.call("Explain", scheduler.pb.ExplainRequest(job=job))
    row = next(row for row in rows if row["job"] == job)
    near = [{"node": miss.node, "lacks": miss.lacks} for miss in why.misses]
    if output in ("json", "jsonl"):
        print_json({**row, "why": why.reason, "position": why.position, "misses": near})
        return
    show([row], output, COLUMNS[:-1], COLUMNS[:-1], "")
    print(
        f"\n{plain(why.reason)}" + (f" (place {why.position} in queue '{plain(row['queue'])}')" if why.position else "")
    )
    for miss in near:
        print(f"  {plain(miss['node'])}: {plain(miss['lacks'])}")
