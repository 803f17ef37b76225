"""The command line: ``fedcl-distill``, or ``python -m simulations``."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

try:
    import typer
    from rich.console import Console
    from typer.core import TyperCommand, TyperGroup
except ImportError as error:
    sys.exit(f"the command line needs {error.name}: pip install 'fedcl-distill[all]'")

from fedcl_distill._imports import check_floors
from fedcl_distill.settings import suggest
from simulations.commands import COMMANDS

_OURS = ("fedcl_distill", "strategies", "simulations")
_USER_ERROR, _INTERRUPTED = 2, 130


class _LateCommand(TyperCommand):
    """A subcommand that is imported when it is called, because Flower and Avalanche take seconds to import."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        command = typer.main.get_command(_typer_of(COMMANDS[str(self.name)].load()))
        return command.make_context(info_name, args, parent, **extra)


def _typer_of(function: Any) -> typer.Typer:
    application = typer.Typer(add_completion=False)
    application.command()(function)
    return application


class _Commands(TyperGroup):
    """The subcommands; what a user did wrong becomes one line, not a traceback."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _LateCommand(cmd_name, help=COMMANDS[cmd_name].help) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(suggest("command", args[0], COMMANDS))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        warnings.filterwarnings("ignore", message="no QP solver found")  # Avalanche imports one; nothing here uses it
        try:
            check_floors()
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _say("interrupted; what was finished is saved, the same command goes on from there")
            raise typer.Exit(_INTERRUPTED) from None
        except ImportError as error:
            if (error.name or "").partition(".")[0] in _OURS:  # a mistake in the program, not in the environment
                raise
            _say(f"this needs {error.name or error}: pip install 'fedcl-distill[all]'" if error.name else str(error))
            raise typer.Exit(_USER_ERROR) from error
        except Exception as error:
            if not _is_ours(error):
                raise
            _say(str(error))
            raise typer.Exit(_USER_ERROR) from error


app = typer.Typer(cls=_Commands, add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the small comparison.", metavar="DIR")] = Path("runs"),
    plugin: Annotated[
        list[str] | None,
        typer.Option(help="Import a module that registers parts of yours, here and in all processes; repeatable."),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Dataset distillation for federated and continual learning, simulated and measured.

    Without a subcommand, runs a small comparison of both worlds on 8x8 digits (a minute of processor time, shared by
    two or three cores) and writes its report.
    """
    if plugin:
        use_plugins(plugin)
    if version:
        from fedcl_distill import __version__

        Console().print(f"fedcl-distill {__version__}", highlight=False)
    elif ctx.invoked_subcommand is None:
        from simulations.commands.small_comparison import show_small_comparison

        show_small_comparison(out)


def use_plugins(modules: list[str]) -> None:
    """Import ``modules`` here, and in the processes that this one starts.

    They are looked for in the working folder, too, but last: nothing there stands in for what is installed.

    Raises:
        SettingsError: one cannot be imported.
    """
    from fedcl_distill.registry import PLUGINS_VARIABLE, load_plugins

    here = os.getcwd()
    sys.path.append(here)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), here)))
    named = [*filter(None, os.environ.get(PLUGINS_VARIABLE, "").split(",")), *modules]
    os.environ[PLUGINS_VARIABLE] = ",".join(dict.fromkeys(named))
    load_plugins.cache_clear()
    load_plugins()


def main() -> None:
    """Entry point of the console script."""
    from simulations.running.processes import tune_allocator

    tune_allocator()
    app(prog_name="fedcl-distill")


def _say(text: str) -> None:
    Console(stderr=True).print(
        f"fedcl-distill: {' '.join(text.split())}", markup=False, highlight=False, soft_wrap=True
    )


def _is_ours(error: Exception) -> bool:
    from fedcl_distill.errors import FedclDistillError

    return isinstance(error, FedclDistillError)
