"""``python -m bonaface``: one command per stage. Heavy imports wait until a command runs, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bonaface.cli import hub
from bonaface.cli.commands import command_line
from bonaface.environment import check_hub
from bonaface.errors import UsageError, usage_errors_exit, writing
from bonaface.imaging import FACE_MARGIN

if TYPE_CHECKING:
    from bonaface.web.evidence import EvidenceFolder

app = command_line(
    "bonaface",
    "Train, evaluate and use detectors of AI-generated faces.",
)

app.add_typer(hub.app, name="hub")
AS_GIVEN = {"ignore_unknown_options": True, "allow_extra_args": True}  # for commands with a parser of their own

DATA_HELP = (
    "Folder with one subfolder per label (also below splits or generators), folder with metadata.csv or .jsonl, "
    "or Hub data set id. Links are followed."
)
RealLabel = Annotated[str | None, typer.Option(help="The label of photographs; by default recognised by its name.")]
Groups = Annotated[
    str,
    typer.Option(
        help="Folders below a label that splits keep whole, such as those of a person or a video: auto, folder (all "
        "that contain images), none, or patterns such as real/*,fake/*/*."
    ),
]
OwnGroups = Annotated[str | None, typer.Option(help="As for `audit`; by default as in the model's training.")]
Weights = Annotated[
    Path | None, typer.Option(help="YuNet weights; by default BONAFACE_YUNET, the Hub, or else the Haar cascade.")
]

Model = Annotated[str, typer.Option(help="Model folder, exported model, or Hub id, with or without @revision.")]
OwnModel = Annotated[
    str | None, typer.Option(help="Model folder, exported model, or Hub id; by default the project's own detector.")
]
Data = Annotated[str, typer.Option(help=DATA_HELP)]
Inputs = Annotated[list[str], typer.Argument(help="Files, folders (or links to them), globs, or `-` for stdin.")]
Device = Annotated[str | None, typer.Option(help="Torch device; by default the GPU if there is one.")]
Precision = Annotated[str | None, typer.Option(help="Precision: float32 or bf16.")]
FaceRule = Annotated[bool | None, typer.Option(help="Look for faces; by default as in the model's training.")]
FakeLabel = Annotated[str | None, typer.Option(help="The model's label for fake images.")]
MaxImages = Annotated[int | None, typer.Option(min=2, help="Use at most this many images, balanced over sources.")]
Quick = Annotated[bool, typer.Option("--quick", help="Two strengths per degradation, and fewer images.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads for decoding and degrading images.")]


@app.command(context_settings=AS_GIVEN, add_help_option=False)
def train(context: typer.Context) -> None:
    """Fine-tune a classifier on image folders."""
    from bonaface.cli.train import run

    run(context.args)


@app.command("app", context_settings=AS_GIVEN, add_help_option=False)
def serve(context: typer.Context) -> None:
    """Serve the detector as a web page and an API."""
    from bonaface.web.app import run

    run(context.args)


@app.command()
def audit(
    data: Annotated[str, typer.Argument(help=DATA_HELP)],
    out: Annotated[Path | None, typer.Option(help="Folder for audit.json and audit.html.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if there is a leak.")] = False,
    real_label: RealLabel = None,
    groups: Groups = "auto",
) -> None:
    """Find shortcuts in a data set before a model does.

    File facts (format, size, JPEG tables) and simple appearance (brightness, borders, framing) that separate real from
    fake; duplicates within and across splits; broken files; sources too small to test with.
    """
    from bonaface.audit.audit import run_audit_command

    with writing(out or "."):
        raise typer.Exit(run_audit_command(data, out, strict, real_label=real_label, groups=groups))


@app.command()
def prepare(
    raw: Annotated[str, typer.Argument(help=DATA_HELP)],
    out: Annotated[Path, typer.Argument(help="New folder, or one that an interrupted call left behind.")],
    seed: Annotated[int, typer.Option(min=0, help="Every random draw depends on it and the file's path alone.")] = 0,
    size: Annotated[tuple[int, int], typer.Option(help="Range of the crops' side in pixels.")] = (128, 160),
    quality: Annotated[tuple[int, int], typer.Option(help="Range of the JPEG quality.")] = (75, 95),
    margin: Annotated[
        float, typer.Option(min=0, help="Border around the face box, as a fraction of its side.")
    ] = FACE_MARGIN,
    faces: Annotated[bool, typer.Option(help="Crop to the main face; --no-faces takes the centre square.")] = True,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.")] = None,
    yunet: Weights = None,
    real_label: RealLabel = None,
    groups: Groups = "auto",
) -> None:
    """Remove shortcuts from a data set.

    The copies are aligned face crops in one size range, with one encoding history and no duplicates. After an
    interruption, the same command resumes and ends with the same bytes.
    """
    from bonaface.data.prepare import run_prepare_command
    from bonaface.imaging.faces import FaceDetector

    with writing(out):
        run_prepare_command(
            raw,
            str(out),
            seed=seed,
            size_range=size,
            quality_range=quality,
            margin=margin,
            faces=faces,
            detector=FaceDetector(yunet) if faces else None,
            workers=workers,
            real_label=real_label,
            groups=groups,
        )


@app.command()
def evaluate(
    model: Model,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report.")] = None,
    split: Annotated[
        str, typer.Option(help="A split's name, `all`, or `auto`: images that the model was not trained on.")
    ] = "auto",
    robustness: Annotated[bool, typer.Option(help="Also score under every degradation.")] = True,
    quick: Quick = False,
    max_images: MaxImages = None,
    prior: Annotated[float, typer.Option(min=0, max=1, help="Base rate: the share of fakes among all images.")] = 0.5,
    real_label: RealLabel = None,
    fake_label: FakeLabel = None,
    groups: OwnGroups = None,
    faces: Annotated[bool, typer.Option("--faces", help="Also look for a face in every image.")] = False,
    threads: Threads = None,
    yunet: Weights = None,
    regressions: Annotated[
        str | None,
        typer.Option(help="Folder of images reported as wrongly judged: exit with 3 if a right one is wrong now."),
    ] = None,
    before: Annotated[
        str | None, typer.Option(help="With --regressions: the earlier model; by default the project's own detector.")
    ] = None,
) -> None:
    """Test a model on a data set and write a report, or test it on reported mistakes.

    The report has figures with intervals, by source and under degradation, calibration and the worst errors. Any image
    classifier with labels for real and fake is evaluated under the same protocol.
    """
    from bonaface.evaluation.evaluate import run_evaluate_command
    from bonaface.evaluation.options import EvaluationOptions

    options = EvaluationOptions(
        split=split, robustness=robustness, quick=quick, max_images=max_images, prior=prior, real_label=real_label,
        fake_label=fake_label, groups=groups, faces=faces, yunet=str(yunet) if yunet else None, threads=threads,
    )  # fmt: skip
    if regressions is not None:
        from bonaface.evaluation.regressions import run_regressions_command
        from bonaface.models.shipped import named_or_shipped

        raise typer.Exit(run_regressions_command(regressions, named_or_shipped(before), model, options))
    if data is None or out is None:
        raise UsageError("evaluate needs --data and --out", "give both, or --regressions FOLDER")
    with writing(out):
        run_evaluate_command(model, data, str(out), options)


@app.command(context_settings={"ignore_unknown_options": True})
def crossval(
    recipe: Annotated[str, typer.Argument(help="Path of a recipe.")],
    flags: Annotated[
        list[str] | None, typer.Argument(help="Flags of train_hf.py, such as --data DATA --num_train_epochs 3.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Divide the images into this many folds; the default, with 5.")
    ] = None,
    leave_one_source_out: Annotated[
        bool, typer.Option("--leave-one-source-out", help="One fold per generator; real sources take turns.")
    ] = False,
    leave_one_family_out: Annotated[
        bool, typer.Option("--leave-one-family-out", help="One fold per family of generators from the same maker.")
    ] = False,
    leave_families_out: Annotated[
        int | None, typer.Option(help="Divide whole families, real and fake, into this many folds.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; by default runs/RECIPE-crossval.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Folds at a time; by default one per core, or 1 with a GPU.")
    ] = None,
    keep_folds: Annotated[
        bool, typer.Option("--keep-folds/--drop-folds", help="Keep the folds' models and reports.")
    ] = True,
) -> None:
    """Train and test a recipe on several folds.

    Each fold holds out different images, sources or families. A single split is a noisy estimate; several give a mean,
    a spread and a worst case. Leaving sources out shows how a detector does on generators and cameras that it was not
    trained on. After an interruption, the same command resumes.
    """
    from bonaface.crossval.crossval import run_crossval_command

    with writing(out or "runs"):
        run_crossval_command(
            [recipe, *(flags or [])],
            folds=folds,
            by_source=leave_one_source_out,
            by_family=leave_one_family_out,
            family_folds=leave_families_out,
            out=out,
            jobs=jobs,
            keep_folds=keep_folds,
        )


@app.command()
def compare(
    models: Annotated[list[str], typer.Argument(help="Two or more models: folders or Hub ids.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the comparison.")],
    split: Annotated[
        str, typer.Option(help="A split's name, `all`, or `auto`: images that no model was trained on.")
    ] = "auto",
    robustness: Annotated[bool, typer.Option(help="Also compare under every degradation.")] = False,
    quick: Quick = False,
    max_images: MaxImages = None,
    real_label: RealLabel = None,
    fake_label: FakeLabel = None,
    groups: OwnGroups = None,
    threads: Threads = None,
) -> None:
    """Compare models on the same images.

    Differences in AUC (DeLong) and accuracy (McNemar) are paired, with intervals and curves.
    """
    from bonaface.evaluation.compare import run_compare_command
    from bonaface.evaluation.options import EvaluationOptions

    options = EvaluationOptions(
        split=split,
        robustness=robustness,
        quick=quick,
        max_images=max_images,
        real_label=real_label,
        fake_label=fake_label,
        groups=groups,
        threads=threads,
    )
    with writing(out):
        run_compare_command(models, data, str(out), options)


@app.command()
def predict(
    paths: Inputs,
    model: OwnModel = None,
    out: Annotated[
        str | None, typer.Option(help="Table to write: .csv, .jsonl or .parquet; by default, print to the terminal.")
    ] = None,
    faces: FaceRule = None,
    engine: Annotated[
        str,
        typer.Option(help="What runs the network: local, torch, openvino, onnx, or ray for a cluster (RAY_ADDRESS)."),
    ] = "local",
    device: Device = None,
    dtype: Precision = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per batch.")] = None,
    real_label: RealLabel = None,
    yunet: Weights = None,
    evidence: Annotated[
        Path | None, typer.Option(help="Folder for a page and a card of each image: its result, to keep or pass on.")
    ] = None,
    evidence_image: Annotated[
        bool, typer.Option(help="Show the image in its evidence; else its SHA-256 stands for it.")
    ] = True,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second of a clip; by default 64 frames, spread over it.")
    ] = None,
    scenes: Annotated[bool, typer.Option("--scenes", help="Spread the frames of a clip over its scenes.")] = False,
    timeline: Annotated[Path | None, typer.Option(help="Folder for a page of each clip: its scores over time.")] = None,
) -> None:
    """Score images and clips.

    Each image gets one row, and each person of a clip, in input order, with verdict and warnings, or the reason why
    there is none. After an interruption, the same command resumes.
    """
    from bonaface.inference.scoring import run_predict_command
    from bonaface.models.shipped import named_or_shipped
    from bonaface.video.frames import Sampling
    from bonaface.video.rows import ClipScorer

    model, sampling = named_or_shipped(model), Sampling(fps, scenes)
    each = None if evidence is None else _evidence_folder(evidence, model, evidence_image)
    with writing(out or evidence or timeline or "."):
        raise typer.Exit(
            run_predict_command(
                paths,
                model,
                out,
                faces=faces,
                engine=engine,
                device=device,
                dtype=dtype,
                batch_size=batch_size,
                real_label=real_label,
                yunet=yunet,
                each=each,
                clips=ClipScorer(sampling, timeline),
            )
        )


def _evidence_folder(folder: Path, model: str, with_image: bool) -> EvidenceFolder:
    from bonaface.web.evidence import EvidenceFolder

    with writing(folder):
        return EvidenceFolder(folder, model, with_image=with_image)


@app.command()
def provenance(
    paths: Inputs,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line instead.")] = False,
    trust: Annotated[
        str | None,
        typer.Option(help="PEM file with the authorities that vouch for signers; by default BONAFACE_C2PA_TRUST."),
    ] = None,
) -> None:
    """Show what image files say about themselves.

    Camera, generator, editing and content credentials (C2PA) are evidence to weigh beside a score, never part of one:
    any upload can remove metadata, and anyone can forge it.
    """
    from bonaface.provenance.read import run_provenance_command

    raise typer.Exit(run_provenance_command(paths, as_json, trust))


@app.command()
def explain(
    path: Annotated[str, typer.Argument(help="An image.")],
    model: OwnModel = None,
    out: Annotated[Path, typer.Option(help="The overlay to write.")] = Path("heat.png"),
    method: Annotated[str, typer.Option(help="auto, integrated_gradients, gradcam or occlusion.")] = "auto",
    test: Annotated[bool, typer.Option(help="Test the map: deletion and insertion, against random and centre.")] = True,
    faces: FaceRule = None,
    engine: Annotated[str, typer.Option(help="What runs the network: auto, torch, openvino or onnx.")] = "auto",
    device: Device = None,
    dtype: Precision = None,
    real_label: RealLabel = None,
    yunet: Weights = None,
) -> None:
    """Show which parts of an image support the verdict.

    The heat map is tested, to show how far to trust it.
    """
    from bonaface.inference.explain import run_explain_command
    from bonaface.models.shipped import named_or_shipped

    with writing(out):
        raise typer.Exit(
            run_explain_command(
                path,
                named_or_shipped(model),
                out,
                faces=faces,
                method=method,
                test=test,
                engine=engine,
                device=device,
                dtype=dtype,
                real_label=real_label,
                yunet=yunet,
            )
        )


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Model folder, or Hub id with or without @revision.")],
    format: Annotated[str, typer.Option(help="openvino or onnx.")],
    out: Annotated[Path | None, typer.Option(help="New folder; by default MODEL-FORMAT.")] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit weights and activations, checked by AUC and verdicts.")
    ] = False,
    data: Annotated[str | None, typer.Option(help="Images to calibrate and check with. " + DATA_HELP)] = None,
    check_images: Annotated[int, typer.Option(min=20, help="Number of images to check with.")] = 200,
    real_label: RealLabel = None,
) -> None:
    """Export a detector to OpenVINO or ONNX Runtime.

    Nothing is written if its scores would differ from the original's.
    """
    from bonaface.inference.export import run_export_command

    with writing(out or model):
        raise typer.Exit(
            run_export_command(model, format, out, int8=int8, data=data, real_label=real_label, n_check=check_images)
        )


@app.command(context_settings={"ignore_unknown_options": True})
def prune(
    recipe: Annotated[str, typer.Argument(help="Path of a recipe, whose model is a vision transformer of timm.")],
    flags: Annotated[
        list[str] | None, typer.Argument(help="Flags of train_hf.py, such as --data DATA --model clip.")
    ] = None,
    out: Annotated[Path, typer.Option(help="New folder, or one that an interrupted call left behind.")] = Path(
        "runs/pruned"
    ),
    blocks: Annotated[int, typer.Option(min=1, help="Blocks to keep, counted from the first.")] = 6,
    units: Annotated[int, typer.Option(min=1, help="Hidden units to keep in each block.")] = 1024,
    views: Annotated[int, typer.Option(min=1, help="Augmented images that the smaller network learns from.")] = 12800,
) -> None:
    """Make a recipe's model smaller before training.

    The result gives nearly the same features from fewer and smaller blocks, stored as 8-bit floats. It learns this from
    the recipe's training images without their labels. Train on it with `--model OUT`. After an interruption, the same
    command resumes.
    """
    from bonaface.cli.prune import prune_recipe
    from bonaface.training.prune import Pruning

    with writing(out):
        print(prune_recipe([recipe, *(flags or [])], out, Pruning(blocks, units, min(Pruning.images, views), views)))


@app.command()
def resemble(
    folder: Annotated[Path, typer.Argument(help="A run; its recipe says how to read the data.")],
    data: Annotated[str | None, typer.Option(help="Its training data; by default where its recipe says.")] = None,
) -> None:
    """Learn which generators fakes are most like, for a run trained before trainings did.

    Scores and verdicts stay as they are. `bonaface hub card` and `bonaface evaluate` then show it.
    """
    from bonaface.cli.resemble import add_resemblance

    with writing(folder):
        print(f"most like: {add_resemblance(folder, data)}")


@app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="New folder.")],
    n: Annotated[int, typer.Option(help="Number of images.")] = 640,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 160,
    seed: Annotated[int, typer.Option(help="A different seed draws different portraits.")] = 0,
) -> None:
    """Write the embedded sample set.

    Its drawn portraits from two simulated cameras and three simulated generators check that everything is installed.
    They say nothing about accuracy on photographs.
    """
    from bonaface.data.sample import write_sample

    with writing(out):
        print(f"{n} images in {write_sample(out, n, size, seed)}")


def main() -> None:
    """Run the command line; a usage error ends it with two lines and exit code 2."""
    with usage_errors_exit():
        check_hub()
        app()
