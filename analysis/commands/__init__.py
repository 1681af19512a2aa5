"""The command `npgd`: a file for each thing it does, all registered here."""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import cached_property
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from analysis.commands import design, figures, predict, recover, sweep, theory, verify
from analysis.commands.terminal import console, plain_errors


class _Commands(TyperGroup):
    """The commands; what they are told amiss is one line on standard error."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        arguments = tuple(args)
        with plain_errors():
            context = super().make_context(info_name, args, parent, **extra)
        context.obj = arguments
        return context

    def invoke(self, ctx: Any) -> Any:
        with plain_errors():
            return super().invoke(ctx)


class _Trainings(TyperGroup):
    """Commands that are made when they are asked for: their options are read from `npgd.training`,
    which takes seconds to import."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        del self.commands

    @cached_property
    def commands(self) -> MutableMapping[str, Any]:  # type: ignore[override]
        from analysis.commands.train import train_app

        return typer.main.get_group(train_app).commands


def _print_version(asked: bool) -> None:
    if asked:
        import npgd

        console.print(npgd.__version__)
        raise typer.Exit()


app = typer.Typer(
    cls=_Commands,
    help="Recover images with generative priors, and verify the theory on the way.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command()(recover.recover)
app.command()(verify.verify)
app.command()(predict.predict)
app.command()(sweep.sweep)
app.command()(design.design)
app.command("worst-case")(theory.worst_case_command)
app.command()(theory.derive)
app.command()(figures.figures)
app.add_typer(
    typer.Typer(
        cls=_Trainings,
        help="Train a generator, a projector, a corrector, a denoiser or a OneNet.",
        no_args_is_help=True,
    ),
    name="train",
)


@app.callback()
def _npgd(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="The version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """The command's entry point, where `analysis` is known to be this package."""
    app()
