"""The command line: `tokbench COMMAND`.

Progress goes to stderr, results to stdout, `--json` is there wherever there is a result.

Exit codes: 0 done, 1 a fault of ours, 2 a mistake in what was asked, 3 done in part (some items failed), 130 stopped.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from tokbench import __version__
from tokbench.commands import (
    abx,
    cache,
    content,
    convert,
    data,
    env,
    leaderboard,
    reproduce,
    results,
    run,
    score,
    tokens,
    train,
)

__all__ = ["app", "main"]

app = typer.Typer(
    name="tokbench",
    help="Measure speech tokenizers under one protocol.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    path: Annotated[
        list[Path] | None, typer.Option("--path", help="Folder with further tokenizers/, tasks/, judges/ (repeatable).")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what is going on.")] = False,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr
    )
    if verbose:
        logging.getLogger("tokbench").setLevel(logging.DEBUG)
    logging.getLogger().setLevel(logging.WARNING)
    if path:
        from tokbench.registry import set_extra_paths

        set_extra_paths(tuple(path))


app.command("run")(run.run)
app.command("score")(score.score)
app.command("encode")(tokens.encode)
app.command("decode")(tokens.decode)
app.command("convert")(convert.convert)
app.command("abx")(abx.abx)
app.command("train")(train.train)
app.command("list")(content.list_)
app.command("show")(content.show)
app.command("doctor")(content.doctor)
app.command("compare")(results.compare)
app.command("audit")(results.audit)
app.add_typer(cache.app, name="cache")
app.add_typer(data.app, name="data")
app.add_typer(env.app, name="env")
app.add_typer(leaderboard.app, name="leaderboard")
app.add_typer(reproduce.app, name="reproduce")


def main() -> None:
    """Run the command line; every expected problem is one line on stderr and an exit code."""
    from tokbench.errors import TokbenchError

    try:
        app()
    except TokbenchError as error:
        sys.stderr.write(f"tokbench: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("tokbench: stopped. What was finished is kept; run the same command again to go on\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
