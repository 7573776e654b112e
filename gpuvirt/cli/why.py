# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt why JOB`: why a job does not run now, who has the GPU, its place, and when its turn will come."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from gpuvirt.cli import connection
from gpuvirt.cli.completion import complete_job
from gpuvirt.cli.line import duration
from gpuvirt.cli.output import brief, cut, format_option, plain, print_json, size, terminal_width
from gpuvirt.errors import UsageError

_LABEL = 11  # columns
_NAME_LIMIT = 64


@click.command("why")
@click.argument("job", shell_complete=complete_job)
@format_option(("table", "json"))
def command(job: str, output: str) -> None:
    """Say why JOB (its name, id or number) waits: who holds the GPU, its place in the queue, when its turn comes.

    "expected": when its turn comes if the turns of others are as they have been; then if they all use the whole of
    their turns. The daemon's own rules are asked what they would do; jobs that come or end meanwhile change it.
    """
    if not 0 < len(job) <= _NAME_LIMIT:
        raise UsageError(f"'{cut(job, _NAME_LIMIT)}' is no name of a job", "see: gpuvirt ps -a")
    answer: dict[str, Any] = connection.connect().call("why", job=job).get("why", {})
    if output == "json":
        print_json(answer)
        return
    width = terminal_width(sys.stdout)
    print("\n".join(cut(plain(line), max(width, 60)) for line in lines(answer)))


def lines(answer: Mapping[str, Any]) -> list[str]:
    """What is shown: the job, then each of its GPUs."""
    share = answer.get("share")
    found = [
        f"{answer['name']} ({answer['job']}) of {answer['user']}: {answer['state']}"
        + (f": {answer['reason']}" if answer.get("reason") else "")
    ]
    if share is not None:
        found.append(_line("share", f"{100 * share:.0f}% of the time so far, at weight {answer['weight']}"))
    queued = answer.get("queued")
    if queued:
        estimate = queued.get("estimate_s")
        when = f"in about {duration(estimate)}" if estimate is not None else "no estimate yet"
        found.append(_line("start", f"{when}; place {queued['position']} in line"))
    for part in answer.get("gpus", []):
        found += ["", f"GPU {part['gpu']}", *_gpu(answer["job"], part)]
    return found


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL}}{text}"


def _gpu(job: str, part: Mapping[str, Any]) -> list[str]:
    found = [_line("holder", _holder(job, part))]
    if part.get("policy"):  # a daemon of an earlier version does not say it
        found.append(_line("policy", f"{part['policy']}: {part['standing']}"))
    if part["waiting"]:
        found.append(_line("place", _place(part)))
        found.append(_line("expected", _expected(part)))
        found.append(_line("waiting", f"for {brief(part['waits_s'])} now{_lately(part)}"))
    elif part["lease"] == "closed":
        found.append(_line("place", "none: it has no work for the GPU now"))
    elif part["queue"]:
        found.append(_line("queue", f"{part['queue']} {'job waits' if part['queue'] == 1 else 'jobs wait'} for it"))
    memory = part["memory"]
    if memory["missing"]:
        leaves = f", {size(memory['leaves'])} of others must leave for it" if memory["leaves"] else ""
        took = f"; about {brief(memory['move_s'])} at the speed of the link" if memory["move_s"] else ""
        found.append(
            _line("memory", f"{size(memory['missing'])} of {size(memory['charged'])} must come in{leaves}{took}")
        )
    if part["reason"]:
        found.append(_line("trouble", part["reason"]))
    return found


def _name(part: Mapping[str, Any], job: str) -> str:
    name = part["names"].get(job)
    return f"{name} ({job})" if name else job


def _holder(job: str, part: Mapping[str, Any]) -> str:
    holder = part["holder"]
    if holder is None:
        return f"nobody; it is being made ready for {_name(part, part['next'])}" if part["next"] else "nobody"
    who = "this job" if holder["job"] == job else _name(part, holder["job"])
    if holder["draining_s"] is not None:
        text = f"{who}: was asked to give it back {brief(holder['draining_s'])} ago; its work ends"
    elif holder["left_s"] is None:
        text = f"{who}: for {brief(holder['held_s'])}, until somebody wants it"
    else:
        text = f"{who}: for {brief(holder['held_s'])}, for {brief(holder['left_s'])} more at most"
    idle = ", idle" if holder["idle"] else ""
    return text + idle + (f"; it {holder['reason']}" if holder["reason"] else "")


def _place(part: Mapping[str, Any]) -> str:
    """ "2 of 3, after big (j3)"."""
    ahead = [_name(part, job) for job in part["ahead"]]
    after = f", after {', '.join(ahead)}" if ahead else ", next"
    return f"{part['position']} of {max(part['queue'], part['position'])}{after}"


def _expected(part: Mapping[str, Any]) -> str:
    if part["expected_s"] is None:
        return "cannot be said: something that it waits for does not answer"
    longest = part["longest_s"]
    same = longest is None or brief(longest) == brief(part["expected_s"])
    most = "" if same else f"; {brief(longest)} if everybody before it uses a whole turn"
    return f"in {brief(part['expected_s'])}{most}"


def _lately(part: Mapping[str, Any]) -> str:
    lately = part["lately"]
    if lately is None:
        return ""
    times = f"{brief(lately['median_s'])} (median of {lately['turns']}), {brief(lately['longest_s'])} at most"
    return f"; before, for {times}"
