# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt submit -- PROGRAM`: hands a job in to the scheduler of a cluster."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gpuvirt.cli import cluster
from gpuvirt.errors import UsageError
from gpuvirt.units import parse_size

MOST = 1_000_000  # of anything that is counted


@click.command("submit", context_settings={"ignore_unknown_options": True})
@click.option("--name", default="", help="What it is called (default: its program).")
@click.option("--queue", default="default", show_default=True)
@click.option("--tier", default="basic", show_default=True, help="premium, standard or basic.")
@click.option(
    "--gpus", default=1.0, show_default=True, metavar="N", help="GPUs of each member; 0.25: a quarter of one."
)
@click.option("--gpu-memory", default="", metavar="SIZE", help="On each GPU (default: in proportion to --gpus).")
@click.option("--gpu-type", "types", multiple=True, metavar="TYPE", help="Any of these; as `gpuvirt nodes` names them.")
@click.option(
    "--members", default="1", show_default=True, metavar="N[-M]", help="Started together; up to M if there is room."
)
@click.option(
    "--within", "topology", default="", metavar="DOMAIN", help="All members in one gpu, host, rack, zone, region."
)
@click.option("--cpus", default=0.0, metavar="N", help="Cores of each member.")
@click.option("--memory", default="", metavar="SIZE", help="Host memory of each member.")
@click.option("--request", default="", metavar="ID", help="The same again is the same job.")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
@cluster.scheduler_options
def command(
    scheduler: cluster.Scheduler, name: str, queue: str, tier: str, gpus: float, gpu_memory: str,
    types: tuple[str, ...], members: str, topology: str, cpus: float, memory: str, request: str,
    program: tuple[str, ...],
) -> None:  # fmt: skip
    """Hand in PROGRAM. Prints the id of the job; `gpuvirt jobs` shows what becomes of it.

    Each member finds GPUVIRT_RANK and GPUVIRT_MEMBERS in its environment and starts in this folder, as this user.
    """
    pb = scheduler.pb
    whole = not 0 < gpus < 1
    if not 0 <= cpus < MOST:
        raise UsageError(f"--cpus {cpus:g}", "a number of cores")
    if not 0 <= gpus < MOST or (whole and gpus != int(gpus)):
        raise UsageError(f"--gpus {gpus:g}", "a whole number, or a part of one GPU")
    least, _, most = members.partition("-")
    if not all(one.isdecimal() and int(one) < MOST for one in (least, most or least)):
        raise UsageError(f"--members {members}", "write 4, or 2-8")
    from gpuvirt.proto.gpuvirt.v1 import types_pb2

    spec = pb.JobSpec(
        name=name or os.path.basename(program[0]),
        queue=queue,
        user=cluster.user(),
        tier=tier,
        program=types_pb2.Program(command=program, folder=str(Path.cwd())),
        demand=pb.Demand(
            gpus=int(gpus) if whole else 1,
            gpu_thousandths=1000 if whole else round(1000 * gpus),
            gpu_memory_bytes=parse_size(gpu_memory) if gpu_memory else 0,
            cpu_thousandths=round(1000 * cpus),
            memory_bytes=parse_size(memory) if memory else 0,
            gpu_types=types,
        ),
        members_min=int(least),
        members_max=int(most or least),
        topology=topology,
    )
    job = scheduler.call("Submit", pb.SubmitRequest(request=request or cluster.request_id(), spec=spec))
    print(job.id)
