# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt simulate`: what would be done with jobs that are only described, or was done with jobs that were recorded.

No daemon and no GPU are needed.
"""

from __future__ import annotations

import sys
import tomllib
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpuvirt.cli import simulate_cluster
from gpuvirt.cli.output import Column, Row, brief, format_option, percent, print_json, show, size
from gpuvirt.errors import ConfigError, UsageError
from gpuvirt.units import format_duration, parse_duration

if TYPE_CHECKING:
    from gpuvirt.simulation.outcome import Outcome
    from gpuvirt.simulation.replay import Replay
    from gpuvirt.simulation.scenario import Scenario

SUFFIX = ".toml"


def _number(key: str, form: str) -> Any:
    return lambda row: "-" if row.get(key) is None else format(row[key], form)


def _brief(key: str) -> Any:
    return lambda row: brief(row.get(key))


def _share(key: str) -> Any:
    return lambda row: "-" if row.get(key) is None else f"{100 * row[key]:.1f}%"


POLICY = Column("POLICY", lambda row: row["policy"])
JOBS = [
    Column("JOB", lambda row: row["job"], shrink=8),
    Column("GPU", lambda row: str(row["gpu"]), right=True),
    Column("WEIGHT", lambda row: str(row["weight"]), right=True),
    Column("SHARE", _share("share"), right=True),
    Column("OF SOLO", lambda row: percent(row.get("normalised")), right=True),
    Column("REQ/s", _number("rate", ".3g"), right=True),
    Column("P50", _brief("latency_p50_s"), right=True),
    Column("P99", _brief("latency_p99_s"), right=True),
    Column("xSOLO", _number("latency_p99_ratio", ".3g"), right=True),
    Column("WAIT99", _brief("wait_p99_s"), right=True),
    Column("TURNS", _number("turns", "d"), right=True),
]
JOBS_WIDE = [
    *JOBS[:4],
    Column("HELD", _share("held"), right=True),
    Column("WANTED", _share("wanted"), right=True),
    *JOBS[4:7],
    Column("P95", _brief("latency_p95_s"), right=True),
    *JOBS[7:9],
    Column("WAIT50", _brief("wait_p50_s"), right=True),
    *JOBS[9:],
    Column("DRAIN99", _brief("drain_p99_s"), right=True),
    Column("OUT", lambda row: size(row.get("out_bytes")), right=True),
    Column("COPIED", lambda row: size(row.get("copied_bytes")), right=True),
    Column("IN", lambda row: size(row.get("in_bytes")), right=True),
    Column("REASON", lambda row: row.get("reason", "")),
]
GPUS = [
    Column("GPU", lambda row: str(row["gpu"]), right=True),
    Column("COMPUTING", _share("computing"), right=True),
    Column("IDLE", _share("idle"), right=True),
    Column("LOSS", _share("loss"), right=True),
    Column("ERROR pp", _number("share_error_pp", ".2f"), right=True),
    Column("JAIN", _number("jain", ".4f"), right=True),
    Column("TURNS", _number("switches", "d"), right=True),
    Column("GAP50", _brief("handover_p50_s"), right=True),
    Column("GAP99", _brief("handover_p99_s"), right=True),
    Column("SWAPPED", lambda row: size(row["out_bytes"]), right=True),
]
REPLAYS = [
    Column("TAPE", lambda row: row["tape"], shrink=20),
    Column("TIME", _brief("seconds"), right=True),
    Column("EVENTS", _number("events", "d"), right=True),
    Column("DECISIONS", _number("decisions", "d"), right=True),
    Column("ACTIONS", _number("actions", "d"), right=True),
    Column("GRANTS", _number("grants", "d"), right=True),
    Column("RESULT", lambda row: "differs" if row["difference"] else "same"),
]


@click.group()
def command() -> None:
    """What the arbiter and the scheduler would do, or did, without a daemon and without a GPU."""


command.add_command(simulate_cluster.command)


@command.command("host")
@click.argument("scenario")
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="Not the scenario's; several compare.")
@click.option("--seed", type=int, metavar="N", help="Other chances: in place of the scenario's seed.")
@click.option("--for", "length", metavar="DURATION", help="In place of the scenario's duration, for example 10m.")
@click.option("--solo/--no-solo", default=True, help="Run each job alone, too, to compare.  [default: solo]")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="A picture.")
@format_option(("table", "wide", "json"))
def host(
    scenario: str,
    policies: tuple[str, ...],
    seed: int | None,
    length: str | None,
    solo: bool,
    plot: Path | None,
    output: str,
) -> None:
    """Run a SCENARIO (a TOML file, or the name of one of `gpuvirt simulate scenarios`) on a simulated clock.

    The decisions are those of the daemon, the same code. SHARE is the part of the GPU's time in which a job computed,
    OF SOLO its throughput of what it has alone, xSOLO its 99th percentile of that. LOSS is the time in which somebody
    wanted the GPU and nobody computed, GAP how long it stood still between two jobs. The policy `bare` is no arbiter
    at all: time slicing of the hardware. docs/simulation.md explains what a scenario says.
    """
    from gpuvirt.simulation.outcome import simulate

    if plot is not None:
        from gpuvirt.cli import simulate_plot

        simulate_plot.require(plot)
    chosen = read_scenario(scenario)
    if seed is not None:
        chosen = replace(chosen, seed=seed)
    if length is not None:
        chosen = replace(chosen, duration=parse_duration(length))
        if chosen.duration <= chosen.warmup:
            raise UsageError(f"--for {length} ends before the warmup of {format_duration(chosen.warmup)} is over")
    runs = [simulate(replace(chosen, policy=policy), solo) for policy in policies or (chosen.policy,)]
    if plot is not None:
        simulate_plot.draw(runs, plot)
    if output == "json":
        print_json({"scenario": scenario, "title": chosen.title, "runs": [_document(run) for run in runs]})
    else:
        print_tables(runs, output)
    sys.stdout.flush()


def _document(run: Outcome) -> dict[str, Any]:
    return {"policy": run.policy, "jobs": run.jobs, "gpus": run.gpus}


def print_tables(runs: list[Outcome], output: str) -> None:
    """One table of all jobs and one of all GPUs."""
    several = [POLICY] if len(runs) > 1 else []
    jobs: list[Row] = [{**row, "policy": run.policy} for run in runs for row in run.jobs]
    gpus: list[Row] = [row for run in runs for row in run.gpus]
    one = all(row["gpu"] == 0 for row in jobs)
    narrow = [column for column in JOBS if not (one and column.title == "GPU")]
    show(jobs, output, [*several, *narrow], [*several, *JOBS_WIDE], "no jobs")
    print()
    show(gpus, output, [*several, *GPUS], [*several, *GPUS], "no GPUs")
    for row in jobs:
        if row.get("reason"):
            print(f"{row['job']}: {row['reason']}")


@command.command("replay")
@click.argument("tapes", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TAPE...")
@format_option(("table", "json"))
def replay(tapes: tuple[Path, ...], output: str) -> int:
    """Play what a daemon recorded (`[daemon] record`) on the decisions of this version.

    The same facts and events must lead to the same decisions, action by action. Exit code 3 when one is another.
    """
    from gpuvirt.simulation.replay import BrokenTape, play

    rows: list[Row] = []
    for path in tapes:
        try:
            with path.open("rb") as lines:
                found = play(lines)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        except BrokenTape as error:
            raise BrokenTape(f"{path}: {error.message}") from None
        rows.append(_replayed(path, found))
    show(rows, output, REPLAYS, REPLAYS, "no tapes")
    if output == "table":
        for row in rows:
            if row["difference"]:
                print(f"{row['tape']}: {row['difference']}")
    return 3 if any(row["difference"] for row in rows) else 0


def _replayed(path: Path, found: Replay) -> dict[str, Any]:
    return {
        "tape": str(path),
        "gpu": found.gpu,
        "seconds": (found.end - found.begin) / 1e9 if found.begin is not None else 0.0,
        "events": found.events,
        "decisions": found.decisions,
        "actions": found.actions,
        "grants": found.grants,
        "cut": found.cut,
        "difference": str(found.difference) if found.difference is not None else None,
    }


@command.command("scenarios")
@format_option(("table", "json"))
def scenarios(output: str) -> None:
    """The scenarios that come with gpuvirt."""
    rows = [{"name": name, "title": read_scenario(name).title} for name in shipped()]
    columns = [Column("NAME", lambda row: row["name"]), Column("TITLE", lambda row: row["title"])]
    show(rows, output, columns, columns, "none")


def shipped() -> list[str]:
    """Names of the scenarios that come with gpuvirt."""
    files = resources.files("gpuvirt.simulation.scenarios").iterdir()
    return sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX))


def read_scenario(name: str) -> Scenario:
    """The scenario of a file, or the shipped one of that name. Raises ConfigError."""
    from gpuvirt.simulation.scenario import read

    try:
        if name in shipped():
            text = (resources.files("gpuvirt.simulation.scenarios") / f"{name}{SUFFIX}").read_text()
        elif "/" not in name and not name.endswith(SUFFIX) and not Path(name).exists():
            raise ConfigError(f"there is no scenario '{name}'", f"give a file, or one of {', '.join(shipped())}")
        else:
            text = Path(name).read_text()
        return read(tomllib.loads(text), name)
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}", "see 'gpuvirt simulate scenarios'") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: not TOML: {error}") from None
