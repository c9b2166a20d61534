"""A finished run -> a model on the Hub: the folder that its users load, its report and its card, in one commit."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transformers import TrainingArguments

from bonaface.errors import UsageError
from bonaface.files import write_text
from bonaface.hub import merge
from bonaface.hub.card import Story, card_of, remember, remembered
from bonaface.hub.privacy import Redactor, refuse_secrets, without_thumbnails
from bonaface.hub.publish import CARD, Published, check_login, check_repo_id, publish
from bonaface.parquet import read_parquet

# Only what is named here is ever published: no checkpoint, optimizer state or pickle.
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.onnx", "openvino_model.xml", "openvino_model.bin")
STATISTICS = ("unfamiliar.safetensors", "resembles.safetensors")  # of the training features
MODEL_FILES = ("config.json", "preprocessor_config.json", "model.safetensors.index.json", *STATISTICS)
REPORT_FILES = ("recipe.yaml", "report/*.json", "report/*.md", "report/*.html", "report/*.png", "report/*.parquet")
TEXTS = (".json", ".yaml", ".md", ".html", ".xml")
OWNED = (*WEIGHTS, *REPORT_FILES, *STATISTICS, "model.safetensors.index.json")
MINE = "README.mine.md"  # a folder's own edits of its card, where those on the Hub are kept


def push_model(
    folder: Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    story: Story | None = None,
    thumbnails: bool = False,
    force: bool = False,
    token: str | None = None,
) -> Published:
    """Publish a run's folder; again, where something changed, as one more commit.

    The card is rewritten and merged with the one on the Hub, or, if nobody edited that, with the folder's own;
    the folder's README.md is the merged card afterwards.

    Args:
        story: what the card says beyond the run's own files.
        thumbnails: keep those of the data set's images in ``report.html``, which shows the mistakes of the test.
        force: publish even without label names or figures.

    Raises:
        UsageError: not a run's folder, or as :func:`bonaface.hub.publish.publish`.
    """
    story = Story(**{**vars(story or Story()), "repo_id": repo_id})
    files = model_files(folder, thumbnails=thumbnails, force=force)
    story = remembered(folder, story)
    fresh = _fresh_card(folder, story)
    own = merge.read_card(folder / CARD) if (folder / CARD).is_file() else None
    written, clean = fresh, Redactor(folder).text

    def merged(there: str | None) -> str:
        nonlocal written
        written, kept = merge_cards(there, own, fresh)
        written = clean(written)
        if kept:
            print(f"kept these parts of the card, which were edited by hand: {', '.join(kept)}", file=sys.stderr)
        return written

    done = publish(
        repo_id, files, merged, message="Model, report and card", private=private, revision=revision, owned=OWNED,
        token=token,
    )  # fmt: skip
    remember(folder, story)
    if written != own:
        if own is not None and not merge.personal(clean(own)) <= merge.personal(written):
            write_text(folder / MINE, own)
            print(f"edits made only in this folder's {CARD} were saved to {folder / MINE}", file=sys.stderr)
        write_text(folder / CARD, written)
    return done


@dataclass(frozen=True)
class Push:
    """The options of a training's ``--push_to_hub``; ``repo_id`` is None without it."""

    repo_id: str | None
    private: bool = False
    revision: str | None = None
    token: str | None = field(default=None, repr=False)

    @classmethod
    def taken_from(cls, args: TrainingArguments) -> Push:
        """Read them, and turn transformers' own way off: it uploads pickles and overwrites the card.

        Raises:
            UsageError: ``--push_to_hub`` without ``--hub_model_id USER/NAME``.
        """
        asked, args.push_to_hub = args.push_to_hub, False
        if not asked:
            return cls(None)
        if not args.hub_model_id:
            raise UsageError("--push_to_hub needs a repository", "add --hub_model_id USER/NAME")
        check_repo_id(args.hub_model_id)
        return cls(args.hub_model_id, bool(args.hub_private_repo), args.hub_revision, args.hub_token)

    def check(self) -> None:
        """Check the login, before hours of training. Raises UsageError."""
        if self.repo_id:
            check_login(self.repo_id, self.token)

    def publish(self, folder: Path) -> None:
        """Publish the finished run and print where, or how to do it later. Raises UsageError."""
        if not self.repo_id:
            return
        try:
            done = push_model(folder, self.repo_id, private=self.private, revision=self.revision, token=self.token)
        except UsageError as error:
            later = f"the run is complete; publish it with `bonaface hub push {folder} {self.repo_id}` ({error.hint})"
            raise UsageError(f"not published: {error}", later) from error
        print(f"hub     {done}")


def merge_cards(there: str | None, own: str | None, fresh: str) -> tuple[str, list[str]]:
    """The new card over the Hub's, or over the folder's own where only that was edited by hand."""
    if there is None or (own is not None and not merge.personal(there)):
        there, own = own, None
    if there is None:
        return fresh, []
    if own is not None and not merge.personal(own) <= merge.personal(there):
        print(f"both this folder's {CARD} and the Hub's were edited; keeping the Hub's", file=sys.stderr)
    return merge.merge(there, fresh)


def model_files(folder: Path, *, thumbnails: bool = False, force: bool = False) -> dict[str, bytes | Path]:
    """The files of a run that are published, by their names in the repository, without the card.

    Texts and tables are read and freed of this machine's paths; weights are read when they are sent.

    Raises:
        UsageError: no model, labels without names, no figures, or an access token in one of the files.
    """
    check_folder(folder, force=force)
    redactor = Redactor(folder)
    files: dict[str, bytes | Path] = {}
    for path in _listed(folder):
        name = path.relative_to(folder).as_posix()
        if path.suffix in TEXTS:
            text = redactor.text(path.read_text(encoding="utf-8"))
            files[name] = (without_thumbnails(text) if path.suffix == ".html" and not thumbnails else text).encode()
        else:
            files[name] = _clean_table(path, redactor) if path.suffix == ".parquet" else path
    refuse_secrets((name, content) for name, content in files.items() if isinstance(content, bytes))
    return files


def check_folder(folder: Path, *, force: bool = False) -> None:
    """Raise UsageError for what should not be published."""
    if not (folder / "config.json").is_file() or not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        raise UsageError(
            f"{folder} is not a model folder", "give a finished run, with config.json, model.safetensors and report/"
        )
    for name in ("config.json", "report/metrics.json"):
        try:
            whole = not (folder / name).is_file() or isinstance(json.loads((folder / name).read_bytes()), dict)
        except ValueError:
            whole = False
        if not whole:
            raise UsageError(f"{folder / name} is damaged", "run the training or the evaluation again")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = (config.get("id2label") or {}).values() or config.get("label_names") or []  # the latter of timm's wrapper
    labels = [str(label) for label in named]
    nameless = not labels or all(label == f"LABEL_{i}" for i, label in enumerate(labels))
    if nameless and not force:
        raise UsageError(
            f"the labels of {folder} have no names ({', '.join(labels) or 'none'})",
            "name them in config.json (id2label), or publish with --force",
        )
    missing = [name for name in ("report/metrics.json", "report/report.md") if not (folder / name).is_file()]
    if missing and not force:
        raise UsageError(
            f"{folder} has no figures ({missing[0]})",
            "let the run finish, or publish it with --force and a card of your own",
        )


def _fresh_card(folder: Path, story: Story) -> str:
    if (folder / "report" / "metrics.json").is_file() and (folder / "report" / "report.md").is_file():
        return card_of(folder, story)
    text = "Published without figures: the performance of this model is unknown."
    metadata = {"library_name": "transformers", "pipeline_tag": "image-classification", "tags": ["bonaface"]}
    return merge.compose(metadata, {"about": f"# {(story.repo_id or folder.name).split('/')[-1]}\n\n{text}"})


def _listed(folder: Path) -> Iterator[Path]:
    for pattern in (*MODEL_FILES, *WEIGHTS, *REPORT_FILES):
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and not path.name.startswith("."):
                yield path


def _clean_table(path: Path, redactor: Redactor) -> bytes | Path:
    """The table itself where it names no path of this machine, else its bytes without them."""
    try:
        table = read_parquet(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is damaged", "run the evaluation again, or delete it") from error
    clean = table.copy()
    for column in table.select_dtypes(["object", "string"]):
        clean[column] = [redactor.text(value) if isinstance(value, str) else value for value in table[column]]
    if clean.equals(table):
        return path
    buffer = io.BytesIO()
    clean.to_parquet(buffer, index=False)
    return buffer.getvalue()
