# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt completion`: the line that makes a shell complete verbs, options and the jobs of this host."""

from __future__ import annotations

import click

from gpuvirt.errors import GpuvirtError

_PATIENCE_S = 1.0  # a shell that waits for longer is a nuisance


def complete_job(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Ids and names of jobs; none when no daemon answers."""
    from gpuvirt.cli import connection

    try:
        client = connection.connect()
        client.timeout_s = _PATIENCE_S
        jobs = client.call("status", all=True).get("jobs", [])
    except GpuvirtError:
        return []
    words = [str(job[key]) for key in ("name", "job") for job in jobs]
    return [word for word in dict.fromkeys(words) if word.startswith(incomplete)]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion for SHELL, to be sourced: eval "$(gpuvirt completion bash)"."""
    from click.shell_completion import get_completion_class

    from gpuvirt.cli.main import program

    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"no completion for {shell}; use bash, zsh or fish")
    click.echo(kind(program, {}, "gpuvirt", "_GPUVIRT_COMPLETE").source())
