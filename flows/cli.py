"""The command `svae`.

Importing this module loads typer and rich and nothing of the pipeline: each command imports what it needs when it
runs, so that archives are read, and every `--help` answers, on the core installation and at once.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import typer

from data.errors import SvaeError, UsageError
from flows import cli_archives, cli_files, cli_generate, cli_models, cli_pipeline, cli_report, cli_tune
from flows.console import Output, errors, print_failure

DEBUG_VARIABLE = "SVAE_DEBUG"
INTERRUPTED = 130
GOES_ON = {
    ("run", ""): "the same command goes on where it was",
    ("tune", ""): "the same command goes on where it was",
    ("train", ""): "with --resume the same command goes on where it was",
    ("compress", "--each"): "the same command goes on with what is not done yet",
    ("decompress", "--each"): "the same command goes on with what is not done yet",
}
"""Of commands, and an option of theirs, that keep what they have done."""
EXTRA = ("torch", "lightning", "prefect", "mlflow", "optuna", "sklearn", "jinja2", "psutil", "matplotlib")
"""Packages that only the extra `pipeline` brings."""

CallError: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
"""What the parser raises of a wrong call; typer carries a copy of click in some versions and not in others."""

EPILOG = """Example: svae run --dataset sample:flights

Example: svae compress sales.csv -o sales.svae

Each command has its own --help. Exit status: 0 done, 1 the data or a file is at fault, 2 the call is wrong, 130
interrupted, 143 ended by SIGTERM."""

app = typer.Typer(
    name="svae",
    help="Sparse codes, small verified archives and tracked models from any table.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
cli_pipeline.add_to(app)
cli_files.add_to(app)
cli_generate.add_to(app)
cli_tune.add_to(app)
cli_report.add_to(app)
cli_archives.add_to(app)
app.add_typer(cli_models.app, name="models")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            told = version("sparse-vae")
        except PackageNotFoundError:
            told = "(not installed)"
        sys.stdout.write(f"svae {told}\n")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version, and no more."),
    ] = False,
) -> None:
    """Options of the command itself."""


_terminated: list[int] = []
"""Signals other than Ctrl-C that this process was told to end by."""


def _terminate(number: int, _frame: object) -> None:
    """SIGTERM is Ctrl-C under another name: what is tidied up after one is so after the other, and once is enough."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _terminated.append(number)
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of the command."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit status: 0 done, 1 the data or a file is at fault, 2 the call is wrong, 130 interrupted,
    143 ended by SIGTERM.

    What failed is told in one line on standard error and, with `--json`, in one object on standard output.
    """
    Output.shown = False
    outcome = _call(arguments)
    if isinstance(outcome, int):
        return outcome
    line = " ".join(outcome.message.split())
    if "--json" in arguments:
        print_failure({"error": line, "status": outcome.status})
    errors.print(f"svae: {line}")
    return outcome.status


class Failure(NamedTuple):
    """How a command ended badly."""

    message: str
    status: int


def _call(arguments: Sequence[str]) -> int | Failure:
    """One command; its status, or what is to be told of its failure."""
    try:
        status = app(list(arguments), prog_name="svae", standalone_mode=False)
        if status == INTERRUPTED:
            return _stopped(arguments)
        return status if isinstance(status, int) else 0
    except CallError as error:
        return _wrong_call(error)
    except SvaeError as error:
        return _ours(error)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        return Failure(
            f"{error.name} is not installed; this command needs: pip install '.[pipeline]' in the project's folder",
            2,
        )
    except KeyboardInterrupt:
        return _stopped(arguments)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return _unexpected(error)


def _stopped(arguments: Sequence[str]) -> Failure:
    told = (
        words
        for (name, option), words in GOES_ON.items()
        if [name] == list(arguments[:1]) and option in ["", *arguments]
    )
    goes_on = next(told, None)
    what = f"ended by {signal.Signals(_terminated[-1]).name}" if _terminated else "interrupted"
    return Failure(
        f"{what}; {goes_on}" if goes_on else what, 128 + _terminated[-1] if _terminated else INTERRUPTED
    )


def _wrong_call(error: Any) -> int | Failure:
    message = error.format_message().replace("Value error, ", "")
    # A group without a command shows its help, whole.
    if not message or type(error).__name__ == "NoArgsIsHelpError":
        errors.print(message, end="\n" if message else "")
        return 2
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "svae"
    if command == "svae run" and "unexpected extra argument" in message:
        message = f"{message.removesuffix('.')}; what to run on goes after --dataset"
    return Failure(f"{message} (see: {command} --help)", 2)


def _ours(error: SvaeError) -> Failure:
    return Failure(str(error), 2 if isinstance(error, UsageError) else 1)


def _unexpected(error: Exception) -> int | Failure:
    """What nobody foresaw, in one line all the same; errors that wrap one of ours show that one."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, SvaeError):
            return _ours(inner)
        inner = inner.__cause__
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Failure(f"{where}{error.strerror or error}", 1)
    if isinstance(error, MemoryError):
        return Failure("not enough memory; use a smaller part of the data", 1)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(frame.filename)}:{frame.lineno}"  # noqa: PTH119
    return Failure(
        f"unexpected {type(error).__name__} at {where}: {error} (with {DEBUG_VARIABLE}=1: the whole story)", 1
    )


if __name__ == "__main__":
    main()
