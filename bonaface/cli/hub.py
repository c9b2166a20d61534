"""``python -m hub``: publish a model, a data set or the app on the Hub; needs ``HF_TOKEN`` or ``hf auth login``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from bonaface.cli.commands import command_line
from bonaface.environment import check_hub
from bonaface.errors import UsageError, usage_errors_exit

app = command_line("hub", "Publish on the Hub: models, data sets, and the app as a Space.")

Folder = Annotated[Path, typer.Argument(help="A finished run of train_hf.py.")]
Repo = Annotated[str, typer.Argument(help="USER/NAME on the Hub; created if it is missing.")]
Private = Annotated[bool, typer.Option("--private", help="Create it as private; refused if it is already public.")]
Revision = Annotated[str | None, typer.Option(help="A branch; created from main if it is missing.")]
License = Annotated[
    str | None, typer.Option(help="Licence of the weights or files, by its Hub name: apache-2.0, mit …")
]
DataLicense = Annotated[str | None, typer.Option(help="Licence of the training images, in words.")]
DataIds = Annotated[list[str] | None, typer.Option("--dataset", help="Hub id of the training data; may be repeated.")]
Unseen = Annotated[Path | None, typer.Option(help="Folder of a leave-one-source-out cross-validation, for the card.")]


@app.command()
def push(
    folder: Folder,
    repo: Repo,
    private: Private = False,
    revision: Revision = None,
    license: License = None,
    data_license: DataLicense = None,
    dataset: DataIds = None,
    unseen: Unseen = None,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Keep the data set's images in the report, if you may publish them.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Publish even without label names or figures.")] = False,
) -> None:
    """Publish a run as a model.

    Weights, report and card are one commit; there is none if nothing has changed. Sections of the card that were
    edited by hand are kept. Checkpoints, pickles, local paths and images of the data set are not published.
    """
    from bonaface.hub.card import Story
    from bonaface.hub.push import push_model

    story = Story(repo, license, data_license, tuple(dataset or ()), unseen)
    print(push_model(folder, repo, private=private, revision=revision, story=story, thumbnails=thumbnails, force=force))


@app.command()
def card(
    folder: Folder,
    license: License = None,
    data_license: DataLicense = None,
    dataset: DataIds = None,
    unseen: Unseen = None,
) -> None:
    """Write the model card, FOLDER/README.md.

    Sections that were edited by hand are kept.
    """
    from bonaface.hub.card import Story, write_card
    from bonaface.hub.push import check_folder

    check_folder(folder)
    print(write_card(folder, Story(None, license, data_license, tuple(dataset or ()), unseen)))


@app.command()
def pack(
    folder: Folder,
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    thumbnails: Annotated[bool, typer.Option("--thumbnails", help="Keep the data set's images in the report.")] = False,
) -> None:
    """Write to a folder what `push` would publish."""
    from bonaface.hub.pack import pack_model

    print(pack_model(folder, out, thumbnails=thumbnails))


@app.command()
def page(
    model: Annotated[str, typer.Argument(help="A model folder, or a Hub id with or without @revision.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
) -> None:
    """Write a static page that judges images in the visitor's browser.

    Any web server serves it; no image leaves the visitor's device.
    """
    from bonaface.page.build import make_page

    print(make_page(model, folder))


@app.command()
def space(
    model: Annotated[str, typer.Argument(help="Hub id, with or without @revision, or a model folder.")],
    repo: Repo,
    docker: Annotated[
        bool, typer.Option("--docker", help="Use a Dockerfile instead of the Hub's Gradio image.")
    ] = False,
    static: Annotated[
        bool, typer.Option("--static", help="Publish the page that judges images in the browser, not the app.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write to this folder, and publish nothing.")] = None,
    private: Private = False,
) -> None:
    """Publish the app, or with --static its page, as a Space that serves a model."""
    if static and docker:
        raise UsageError("--static and --docker exclude each other", "give one of the two")
    if static:
        from bonaface.page.space import make_static_space

        print(make_static_space(model, repo, out=out, private=private))
        return
    from bonaface.hub.space import make_space

    print(make_space(model, repo, docker=docker, out=out, private=private))


@app.command()
def dataset(
    folder: Annotated[str, typer.Argument(help="Data in any form that training accepts.")],
    repo: Repo,
    private: Private = False,
    revision: Revision = None,
    license: License = None,
    real_label: Annotated[str | None, typer.Option(help="The label of photographs.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Audit file facts and duplicates, but not the faces.")] = False,
) -> None:
    """Publish a data set, with a card and its audit.

    It becomes Parquet with the columns image, label, source and group.
    """
    from bonaface.hub.dataset import push_dataset

    print(
        push_dataset(
            folder, repo, private=private, revision=revision, license=license, real_label=real_label, fast=fast
        )
    )


def main() -> None:
    """Run the command line; a usage error ends it with two lines and exit code 2."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when the client is imported
    with usage_errors_exit():
        check_hub()
        app()
