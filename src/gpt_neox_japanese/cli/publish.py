"""`neox-ja publish`: a finished model → the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

import click

from gpt_neox_japanese.cli.options.shared import PATH
from gpt_neox_japanese.cli.options.stdin import TEXT

__all__ = ["command"]


@click.command()
@click.argument("model", type=PATH)
@click.argument("repository", type=TEXT, metavar="OWNER/NAME")
@click.option(
    "--license",
    "license_id",
    type=TEXT,
    metavar="ID",
    help="The model's licence by the Hub's names, such as apache-2.0; needed unless MODEL has a "
    "README.md, which says it.",
)
@click.option("--data-text", type=TEXT, help="What it learned from, for the page that is made.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--dry-run", is_flag=True, help="Send nothing; print the page.")
def command(
    model: Path,
    repository: str,
    license_id: str | None,
    data_text: str | None,
    private: bool,
    dry_run: bool,
) -> None:
    """Publish MODEL, the directory of a finished run or any model, on the Hugging Face Hub.

    Weights, configuration, vocabulary and the curve go there, and a page about them: README.md in
    MODEL, or one that is made of the run's report. Records and checkpoints stay here.
    """
    from gpt_neox_japanese.interop.hub import publication, publish

    what = publication(model, repository, license_id=license_id, data=data_text)
    if dry_run:
        click.echo(what.page, nl=False)
        click.echo(f"would publish: {', '.join(sorted([*what.files, 'README.md']))}", err=True)
        return
    click.echo(publish(what, private=private))
