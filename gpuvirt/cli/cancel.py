# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt cancel JOB...`: ends jobs of a cluster, or takes them out of their queue."""

from __future__ import annotations

import click

from gpuvirt.cli import cluster


@click.command("cancel")
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@cluster.scheduler_options
def command(scheduler: cluster.Scheduler, jobs: tuple[str, ...]) -> None:
    """End jobs of the cluster: SIGTERM, and SIGKILL after 10 s."""
    for job in jobs:
        request = scheduler.pb.CancelRequest(request=cluster.request_id(), job=job)
        print(f"{job} {scheduler.state(scheduler.call('Cancel', request))}")
