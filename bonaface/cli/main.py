"""``python -m bonaface``: one command a stage. Heavy imports wait until a command runs, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bonaface.cli import hub
from bonaface.cli.commands import command_line
from bonaface.environment import check_numbers
from bonaface.errors import usage_errors_exit, writing
from bonaface.imaging import FACE_MARGIN

app = command_line(
    "bonaface",
    "Train, check and use honest detectors of AI-generated faces.",
)

app.add_typer(hub.app, name="hub")
AS_GIVEN = {"ignore_unknown_options": True, "allow_extra_args": True}  # for commands with a parser of their own

DATA_HELP = (
    "Folder with one sub-folder a label (also below splits or generators), folder with metadata.csv or .jsonl, "
    "or Hub data set id. Links are followed."
)
RealLabel = Annotated[
    str | None, typer.Option(help="The label that means a photograph; found by its name if not given.")
]
Groups = Annotated[
    str,
    typer.Option(
        help="Folders below a label that splits keep whole, as those of a person or a video: auto, folder (all that "
        "hold images), none, or patterns, as real/*,fake/*/*."
    ),
]
OwnGroups = Annotated[str | None, typer.Option(help="As for `audit`; by default as the model was trained.")]
Weights = Annotated[Path | None, typer.Option(help="YuNet weights; else BONAFACE_YUNET, the Hub, or the Haar cascade.")]

Model = Annotated[str, typer.Option(help="Model folder, exported model, or Hub id, with or without @revision.")]
OwnModel = Annotated[
    str | None, typer.Option(help="Model folder, exported model, or Hub id; the project's own detector if not given.")
]
Data = Annotated[str, typer.Option(help=DATA_HELP)]
Inputs = Annotated[list[str], typer.Argument(help="Files, folders (or links to them), globs, or `-` for stdin.")]
Device = Annotated[str | None, typer.Option(help="For torch; the GPU where there is one.")]
Precision = Annotated[str | None, typer.Option(help="float32 or bf16.")]
FaceRule = Annotated[bool | None, typer.Option(help="Look for faces; by default as the model's facts say.")]
FakeLabel = Annotated[str | None, typer.Option(help="The label of a model that means fake.")]
MaxImages = Annotated[int | None, typer.Option(min=2, help="At most this many, balanced over sources.")]
Quick = Annotated[bool, typer.Option("--quick", help="Two strengths of each, and fewer images.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads that decode and degrade.")]


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
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 where something gives the classes away.")
    ] = False,
    real_label: RealLabel = None,
    groups: Groups = "auto",
) -> None:
    """Find what gives the classes away before a model does.

    File facts (format, size, JPEG tables) and cheap looks (brightness, borders, framing) that separate real from fake;
    duplicates inside and across splits; broken files; sources too small to test with.
    """
    from bonaface.audit.audit import run_audit_command

    with writing(out or "."):
        raise typer.Exit(run_audit_command(data, out, strict, real_label=real_label, groups=groups))


@app.command()
def prepare(
    raw: Annotated[str, typer.Argument(help=DATA_HELP)],
    out: Annotated[Path, typer.Argument(help="New folder, or one that an interrupted call left behind.")],
    seed: Annotated[int, typer.Option(min=0, help="Every draw depends on it and the file's path alone.")] = 0,
    size: Annotated[tuple[int, int], typer.Option(help="Range of the crops' side, pixels.")] = (128, 160),
    quality: Annotated[tuple[int, int], typer.Option(help="Range of the JPEG quality.")] = (75, 95),
    margin: Annotated[
        float, typer.Option(min=0, help="Border around the face box, as a share of its side.")
    ] = FACE_MARGIN,
    faces: Annotated[bool, typer.Option(help="Crop to the main face; --no-faces takes the centre square.")] = True,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core if not given.")] = None,
    yunet: Weights = None,
    real_label: RealLabel = None,
    groups: Groups = "auto",
) -> None:
    """Take away what gives the classes away: aligned face crops, one size range, one encoding history, no duplicates.

    Resumable: the same command continues after a kill and ends with the same bytes.
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
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the report.")],
    split: Annotated[
        str, typer.Option(help="A split's name, `all`, or `auto`: what the model was not trained on.")
    ] = "auto",
    robustness: Annotated[bool, typer.Option(help="Score again under every degradation.")] = True,
    quick: Quick = False,
    max_images: MaxImages = None,
    prior: Annotated[float, typer.Option(min=0, max=1, help="Base rate: the share of fakes among all images.")] = 0.5,
    real_label: RealLabel = None,
    fake_label: FakeLabel = None,
    groups: OwnGroups = None,
    faces: Annotated[bool, typer.Option("--faces", help="Also look for a face in every image.")] = False,
    threads: Threads = None,
    yunet: Weights = None,
) -> None:
    """Figures with intervals, by source, under degradation, with calibration and the worst errors: one report.

    Any image classifier whose labels can be told apart is judged by the same ruler.
    """
    from bonaface.evaluation.evaluate import run_evaluate_command
    from bonaface.evaluation.options import EvaluationOptions

    options = EvaluationOptions(
        split=split,
        robustness=robustness,
        quick=quick,
        max_images=max_images,
        prior=prior,
        real_label=real_label,
        fake_label=fake_label,
        groups=groups,
        faces=faces,
        yunet=str(yunet) if yunet else None,
        threads=threads,
    )
    with writing(out):
        run_evaluate_command(model, data, str(out), options)


@app.command(context_settings={"ignore_unknown_options": True})
def crossval(
    recipe: Annotated[str, typer.Argument(help="A recipe.")],
    flags: Annotated[
        list[str] | None, typer.Argument(help="Flags of train_hf.py, as --data DATA --num_train_epochs 3.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Deal the images to so many folds; 5 if nothing is asked for.")
    ] = None,
    leave_one_source_out: Annotated[
        bool, typer.Option("--leave-one-source-out", help="A fold for each generator; real sources in turn.")
    ] = False,
    leave_one_family_out: Annotated[
        bool, typer.Option("--leave-one-family-out", help="A fold for each family of generators of one making.")
    ] = False,
    leave_families_out: Annotated[
        int | None, typer.Option(help="Deal whole families, real and fake, to so many folds.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; runs/RECIPE-crossval if not given.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Folds at a time; one a core without a GPU, else 1, if not given.")
    ] = None,
    keep_folds: Annotated[
        bool, typer.Option("--keep-folds/--drop-folds", help="Keep the folds' models and reports.")
    ] = True,
) -> None:
    """Train and test a recipe several times, on other images, sources or families each time.

    The folds' tests together say more than one split does: mean, spread and the worst. Leaving sources out says how a
    detector does on generators and cameras that it was not trained on. The same command continues after a kill.
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
    models: Annotated[list[str], typer.Argument(help="Two models or more: folders or Hub ids.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the comparison.")],
    split: Annotated[
        str, typer.Option(help="A split's name, `all`, or `auto`: what no model was trained on.")
    ] = "auto",
    robustness: Annotated[bool, typer.Option(help="Compare under every degradation too.")] = False,
    quick: Quick = False,
    max_images: MaxImages = None,
    real_label: RealLabel = None,
    fake_label: FakeLabel = None,
    groups: OwnGroups = None,
    threads: Threads = None,
) -> None:
    """The same images, paired: difference of AUC (DeLong) and of accuracy (McNemar), with intervals and curves."""
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
        str | None, typer.Option(help="Table: .csv, .jsonl or .parquet; without it, on the terminal.")
    ] = None,
    faces: FaceRule = None,
    engine: Annotated[
        str,
        typer.Option(help="What runs the network: local, torch, openvino, onnx; or ray, a cluster (RAY_ADDRESS)."),
    ] = "local",
    device: Device = None,
    dtype: Precision = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Pictures at a time.")] = None,
    real_label: RealLabel = None,
    yunet: Weights = None,
) -> None:
    """Score pictures: a row for every input, in input order, with verdict, warnings or the reason why not.

    A killed run continues where it stopped: give the same command again.
    """
    from bonaface.inference.scoring import run_predict_command
    from bonaface.models.shipped import named_or_shipped

    with writing(out or "."):
        raise typer.Exit(
            run_predict_command(
                paths,
                named_or_shipped(model),
                out,
                faces=faces,
                engine=engine,
                device=device,
                dtype=dtype,
                batch_size=batch_size,
                real_label=real_label,
                yunet=yunet,
            )
        )


@app.command()
def provenance(
    paths: Inputs,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line instead.")] = False,
) -> None:
    """Show what picture files say of themselves: camera, generator, editing, content credentials (C2PA).

    Evidence to weigh beside a score, and no part of one: metadata is lost at any upload and forged in a minute.
    """
    from bonaface.provenance.read import run_provenance_command

    raise typer.Exit(run_provenance_command(paths, as_json))


@app.command()
def explain(
    path: Annotated[str, typer.Argument(help="A picture.")],
    model: OwnModel = None,
    out: Annotated[Path, typer.Option(help="The overlay to write.")] = Path("heat.png"),
    method: Annotated[str, typer.Option(help="auto, gradcam or occlusion.")] = "auto",
    test: Annotated[bool, typer.Option(help="Test the map: deletion and insertion against random and centre.")] = True,
    faces: FaceRule = None,
    engine: Annotated[str, typer.Option(help="What runs the network: auto, torch, openvino or onnx.")] = "auto",
    device: Device = None,
    dtype: Precision = None,
    real_label: RealLabel = None,
    yunet: Weights = None,
) -> None:
    """Show which parts of a picture speak for the verdict, and how far to trust that map."""
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
    out: Annotated[Path | None, typer.Option(help="New folder; MODEL-FORMAT if not given.")] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit weights and activations, checked by AUC and verdicts.")
    ] = False,
    data: Annotated[str | None, typer.Option(help="Pictures to calibrate and check with. " + DATA_HELP)] = None,
    check_images: Annotated[int, typer.Option(min=20, help="Pictures to check with.")] = 200,
    real_label: RealLabel = None,
) -> None:
    """Write the same detector for OpenVINO or ONNX Runtime; refuses where its scores would differ."""
    from bonaface.inference.export import run_export_command

    with writing(out or model):
        raise typer.Exit(
            run_export_command(model, format, out, int8=int8, data=data, real_label=real_label, n_check=check_images)
        )


@app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="New folder.")],
    n: Annotated[int, typer.Option(help="How many images.")] = 640,
    size: Annotated[int, typer.Option(help="Side, pixels.")] = 160,
    seed: Annotated[int, typer.Option(help="Another seed draws other portraits.")] = 0,
) -> None:
    """Write the embedded sample set: drawn portraits, seen by two cameras or made by three generators.

    It proves that everything is installed and works. It says nothing about real detection.
    """
    from bonaface.data.sample import write_sample

    with writing(out):
        print(f"{n} images are in {write_sample(out, n, size, seed)}")


def main() -> None:
    """Run the command line; a usage error ends it with two lines and exit code 2."""
    with usage_errors_exit():
        check_numbers()
        app()
