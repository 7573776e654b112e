# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt simulate cluster`: jobs of a trace on a fleet that does not exist, by one or several orders of the queue."""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpuvirt.cli.output import Column, Row, brief, format_option, print_json, show
from gpuvirt.errors import ConfigError, UsageError
from gpuvirt.units import parse_duration

if TYPE_CHECKING:
    from gpuvirt.scheduler.simulate.engine import Request

HOSTS = re.compile(r"^([1-9]\d{0,5})(?:x([1-9]\d{0,2}))?$")
GPUS_OF_A_HOST = 8


def _seconds(key: str) -> Any:
    return lambda row: brief(row.get(key))


def _percent(key: str) -> Any:
    return lambda row: "-" if row.get(key) is None else f"{100 * row[key]:.1f}%"


def _number(key: str, form: str) -> Any:
    return lambda row: format(row[key], form)


POLICY = Column("POLICY", lambda row: row["policy"])
RUNS = [
    POLICY,
    Column("JCT", _seconds("jct_avg_s"), right=True),
    Column("P50", _seconds("jct_p50_s"), right=True),
    Column("P95", _seconds("jct_p95_s"), right=True),
    Column("P99", _seconds("jct_p99_s"), right=True),
    Column("WAIT", _seconds("wait_avg_s"), right=True),
    Column("WAIT95", _seconds("wait_p95_s"), right=True),
    Column("xRUN95", _number("slowdown_p95", ".3g"), right=True),
    Column("GIVEN", _percent("allocation"), right=True),
    Column("PREEMPTED", _number("suspensions", "d"), right=True),
    Column("LOST", _percent("lost"), right=True),
]
RUNS_WIDE = [
    *RUNS[:5],
    Column("MAX", _seconds("jct_max_s"), right=True),
    Column("WAIT", _seconds("wait_avg_s"), right=True),
    Column("WAIT50", _seconds("wait_p50_s"), right=True),
    Column("WAIT95", _seconds("wait_p95_s"), right=True),
    Column("WAIT99", _seconds("wait_p99_s"), right=True),
    Column("xRUN50", _number("slowdown_p50", ".3g"), right=True),
    *RUNS[7:8],
    Column("JAIN", _number("jain", ".3f"), right=True),
    *RUNS[8:],
    Column("USED", _percent("used"), right=True),
    Column("ALL DONE", _seconds("makespan_s"), right=True),
]
TENANTS = [
    POLICY,
    Column("TENANT", lambda row: row["tenant"], shrink=8),
    Column("JOBS", _number("jobs", "d"), right=True),
    Column("GPU h", lambda row: f"{row['gpu_s'] / 3600:,.0f}", right=True),
    Column("JCT", _seconds("jct_avg_s"), right=True),
    Column("WAIT", _seconds("wait_avg_s"), right=True),
    Column("xRUN", _number("slowdown_avg", ".3g"), right=True),
]


@click.command("cluster")
@click.option("--trace", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Jobs; .gz, too.")
@click.option("--hosts", required=True, metavar="NxG", help="So many hosts of so many GPUs, for example 5x4.")
@click.option("--tenant", metavar="NAME", help="Only its jobs (Philly: the virtual cluster).")
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="Order of the queue; several compare.")
@click.option("--suspend", default="0", metavar="DURATION", help="Taking a job off its GPUs.  [default: 0]")
@click.option("--resume", default="0", metavar="DURATION", help="Putting it back.  [default: 0]")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="A picture.")
@format_option(("table", "wide", "json"))
def command(
    trace: Path,
    hosts: str,
    tenant: str | None,
    policies: tuple[str, ...],
    suspend: str,
    resume: str,
    plot: Path | None,
    output: str,
) -> None:
    """Run the jobs of a trace on a fleet, on a simulated clock, by the scheduler's own orders of the queue.

    JCT is the time from a job's arrival to its end, WAIT that without its run time, xRUN JCT in run times. GIVEN is the
    part of the GPUs that jobs had while others waited, LOST the part of the GPU time that suspending and resuming took,
    USED the part that was work. GPUs are counted, not placed: a gang fits when as many are free. The trace is one of
    Philly's: a CSV file with the columns timestamp, duration, num_gpus and cluster.
    """
    from gpuvirt.scheduler.order import DEFAULT, POLICIES
    from gpuvirt.scheduler.order.job import Terms
    from gpuvirt.scheduler.simulate.engine import Engine
    from gpuvirt.scheduler.simulate.outcome import figures, tenants

    for name in policies:
        if name not in POLICIES:
            raise UsageError(f"there is no policy '{name}'", f"known: {', '.join(POLICIES)}")
    terms = Terms(parse_hosts(hosts), parse_cost(suspend), parse_cost(resume))
    if plot is not None:
        from gpuvirt.cli import simulate_cluster_plot, simulate_plot

        simulate_plot.require(plot)
    jobs = read_trace(trace, tenant)
    runs = [Engine(jobs, terms, POLICIES[name]).run() for name in policies or (DEFAULT,)]
    if plot is not None:
        simulate_cluster_plot.draw(runs, f"{trace.name}, {terms.gpus} GPUs", plot)
    rows: list[Row] = [figures(run) for run in runs]
    shares: list[Row] = [row for run in runs for row in tenants(run)]
    if output == "json":
        costs = {"suspend_s": terms.suspend, "resume_s": terms.resume}
        document = {"trace": str(trace), "tenant": tenant, "hosts": hosts, "gpus": terms.gpus, **costs}
        print_json({**document, "runs": rows, "tenants": shares})
    else:
        show(rows, output, RUNS, RUNS_WIDE, "no jobs")
        if len(shares) > len(rows):
            print()
            show(shares, output, TENANTS, TENANTS, "no jobs")
    sys.stdout.flush()


def parse_hosts(text: str) -> int:
    """GPUs of "5x4" (five hosts of four) or "5" (of eight). Raises UsageError."""
    match = HOSTS.match(text)
    if match is None:
        raise UsageError(f"--hosts {text}: not hosts and their GPUs", "write for example 5x4")
    return int(match[1]) * int(match[2] or GPUS_OF_A_HOST)


def parse_cost(text: str) -> float:
    """Seconds of "10s" or "0". Raises UsageError."""
    return 0.0 if text.strip() == "0" else parse_duration(text) / 1e9


def read_trace(path: Path, tenant: str | None) -> list[Request]:
    """The jobs of a file, those of one tenant or all. Raises ConfigError."""
    from gpuvirt.scheduler.traces import philly

    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            return philly.read(lines, tenant)
    except (EOFError, UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise ConfigError(f"{path}: not a trace: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "give a CSV file, also .csv.gz") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", error.hint) from None
