"""The command group: finds subcommands when they are called, and turns every error into one line and an exit code.

0: done. 1: the answer is no, or a run that failed. 2: bad use, which includes bad input.
"""

from __future__ import annotations

import importlib
import keyword
import os
import sys
from typing import Any, NoReturn

import click

# command -> its line in `refnaf --help`; the module of the same name holds a click command of the same name
# (with an underscore behind it where that is a keyword).
COMMANDS = {
    "fit": "Fit a flow to a table of numbers.",
    "score": "Log-density of every row under a fitted flow.",
    "sample": "Draw rows from a fitted flow.",
    "plot": "Picture a fitted flow: density, samples, training curve, calibration.",
    "info": "What a model file holds.",
    "infer": "Fit a flow to an unnormalised log-density: variational inference.",
    "import": "Make a flow of another library's weights.",
    "vectors": "Golden vectors of a flow, to hold another implementation against.",
    "verify": "Compare another implementation with golden vectors; name what went wrong.",
    "check": "Is a normalising flow, given as Python functions, right?",
    "data": "The data sets of the published tables: download, prepare, check.",
}


class OneLineGroup(click.Group):
    """A group with lazily imported commands whose errors are one line on standard error."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command: click.Command = getattr(importlib.import_module(f"refnaf_cli.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # caught before click, which would write an empty line
            raise click.Abort from None

    def main(
        self,
        args: Any = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()  # here rather than at exit, where a closed pipe would be reported with a traceback
        except Exception as error:
            _exit_with(error)
        sys.exit(code if isinstance(code, int) else 0)


def _exit_with(error: Exception) -> NoReturn:
    if os.environ.get("REFNAF_TRACEBACK"):
        raise error
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "refnaf"
        _fail(f"{error.format_message().rstrip('.')}; see {where} --help", 2)
    if isinstance(error, click.ClickException):
        _fail(error.format_message(), error.exit_code)
    if isinstance(error, click.Abort):
        _fail("interrupted", 1)
    if isinstance(error, BrokenPipeError):  # the reader of our output has gone, as in `refnaf info model | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if isinstance(error, MemoryError):
        _fail(f"out of memory ({error})" if str(error) else "out of memory", 1)
    if isinstance(error, OSError) and error.strerror:
        _fail(f"{error.filename or 'input or output'}: {error.strerror}", 2)
    if isinstance(error, (ValueError, OSError)):
        _fail(str(error), 2)
    if isinstance(error, (RuntimeError, ImportError)):
        _fail(str(error) or type(error).__name__, 1)
    _fail(f"this should not have happened: {type(error).__name__}: {error}; REFNAF_TRACEBACK=1 shows where", 1)


def _fail(text: str, code: int) -> NoReturn:
    if sys.stderr.isatty():
        click.echo(err=True)  # a progress bar may be standing on this line
    click.echo(f"refnaf: error: {' '.join(text.split())}", err=True)
    sys.exit(code)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        import refnaf

        click.echo(f"refnaf {refnaf.__version__}")
        ctx.exit()


@click.group(
    cls=OneLineGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example: refnaf fit data.npy, then refnaf score data.safetensors data.npy. Exit codes: 0 done, 1 the "
    "answer is no or the run failed, 2 bad use or bad input. REFNAF_TRACEBACK=1 shows where an error came from.",
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Print the version and exit."
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Neural autoregressive flows: from a table of numbers to its density.

    Tables are .npy, .npz, .csv, or .parquet where pyarrow is installed. Log-densities are in nats.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
