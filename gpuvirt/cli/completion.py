# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt completion`: the line that makes a shell complete verbs and options."""

from __future__ import annotations

import click


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
