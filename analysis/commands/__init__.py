"""The command `npgd`: a file for each thing it does, all registered here."""

from __future__ import annotations

import typer

from analysis.commands import design, figures, recover, theory, verify
from analysis.commands.train import train_app

app = typer.Typer(
    help="Recover images with generative priors, and verify the theory on the way.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command()(recover.recover)
app.command()(verify.verify)
app.command()(design.design)
app.command("worst-case")(theory.worst_case_command)
app.command()(theory.derive)
app.command()(figures.figures)
app.add_typer(train_app, name="train")


def main() -> None:
    """Entry point of the command."""
    app()
