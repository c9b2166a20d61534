"""Scores to figures: equal to scikit-learn's and evaluate's, sound on one class, ties, nothing, and many classes."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import evaluate
import numpy as np
import pandas as pd
import pytest
import transformers
from evaluate import evaluator
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from bonaface.stats import metrics
from bonaface.stats.intervals import BOOTSTRAP_FIGURES, LOW_FPRS
from bonaface.stats.predictions import predictions_frame, score_matrix
from bonaface.stats.probabilities import fake_probability

THREE = ["edited", "real", "fake"]


def softmax_scores(n: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers and probabilities that lean towards them."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + 1.3 * np.eye(k)[truth]
    scores = np.exp(logits)
    return truth, scores / scores.sum(axis=1, keepdims=True)


def table(n: int = 600, labels: tuple[str, ...] = ("fake", "real"), seed: int = 0, **columns: object) -> pd.DataFrame:
    truth, scores = softmax_scores(n, len(labels), seed)
    columns = {
        "path": [f"{i}.jpg" for i in range(n)],
        "source": [f"s{i % 3}" for i in range(n)],
        "split": "test",
    } | columns
    return predictions_frame(scores, truth, labels=list(labels), real_label="real", **columns)  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", [("fake", "real"), ("real", "fake"), ("edited", "real", "fake")])
def test_every_figure_equals_scikit_learns(labels: tuple[str, ...]) -> None:
    truth, scores = softmax_scores(800, len(labels))
    scores = np.round(scores, 2)  # ties
    scores[:, -1] = 1 - scores[:, :-1].sum(axis=1)
    real, called = labels.index("real"), scores.argmax(axis=1)
    fake, p = truth != real, np.delete(scores, real, axis=1).sum(axis=1)
    found = metrics.all_figures(truth, scores, labels=labels, real_index=real)
    same = {"abs": 1e-9, "rel": 0}
    assert found["accuracy"] == sk.accuracy_score(truth, called)
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, called), **same)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(fake, p), **same)
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(fake, p), **same)
    assert found["brier"] == pytest.approx(sk.brier_score_loss(fake, np.clip(p, 0, 1)), **same)
    assert found["log_loss"] == pytest.approx(sk.log_loss(truth, scores), **same)
    assert found["recall"] == pytest.approx(sk.recall_score(fake, called != real), **same)
    assert found["fpr"] == pytest.approx(1 - sk.recall_score(~fake, called == real), **same)
    assert found["confusion_matrix"] == sk.confusion_matrix(truth, called).tolist()
    report = sk.classification_report(truth, called, target_names=labels, output_dict=True)
    for label in labels:
        row = found["per_class"][label]
        assert row["support"] == report[label]["support"]
        assert row["precision"] == pytest.approx(report[label]["precision"], **same)
        assert row["recall"] == pytest.approx(report[label]["recall"], **same)
        assert row["f1"] == pytest.approx(report[label]["f1-score"], **same)
    fpr, tpr, _ = sk.roc_curve(fake, p, drop_intermediate=False)
    for name, limit in LOW_FPRS.items():
        assert found[name] == pytest.approx(tpr[fpr <= limit].max(), **same)


def test_calibration_error_is_that_of_the_reliability_curve() -> None:
    truth, scores = softmax_scores(500, 2)
    fake, p = truth == 0, scores[:, 0]
    share, mean = calibration_curve(fake, p, n_bins=15)
    bins = metrics.reliability(fake, p)
    assert list(bins) == ["mean_p_fake", "share_fake", "n"]
    assert bins["share_fake"].to_numpy() == pytest.approx(share)
    assert bins["mean_p_fake"].to_numpy() == pytest.approx(mean)
    expected = (np.abs(share - mean) * bins["n"]).sum() / 500
    assert metrics.binary_figures(fake, p)["ece"] == pytest.approx(expected, abs=1e-12)


def test_calibration_error_by_chance_is_that_of_labels_drawn_from_the_scores() -> None:
    """It shrinks with the number of images, and scores that lie are above it."""
    rng = np.random.default_rng(0)
    means = []
    for n in (200, 2_000, 20_000):
        p = rng.beta(0.5, 0.5, n)
        mean, most = metrics.ece_by_chance(p, draws=300)
        shown = [metrics.binary_figures(rng.random(n) < p, p)["ece"] for _ in range(200)]
        assert mean == pytest.approx(np.mean(shown), rel=0.1)
        assert 0.85 < np.mean(np.array(shown) <= most) <= 1.0
        assert metrics.binary_figures(rng.random(n) < p**3, p)["ece"] > most
        means.append(mean)
    assert means[0] > 2.5 * means[1] > 6 * means[2]
    assert np.isnan(metrics.ece_by_chance([])).all()


def test_the_evaluate_metric_takes_batches_and_agrees_with_the_function(tmp_path: Path) -> None:
    truth, scores = softmax_scores(300, 3)
    metric = metrics.FaceMetrics(THREE, "real", cache_dir=str(tmp_path))
    assert isinstance(metric, evaluate.Metric)
    whole = metric.compute(references=truth, predictions=scores)
    assert whole == metrics.all_figures(truth, scores, labels=THREE, real_index=1)
    for start in range(0, 300, 128):
        metric.add_batch(references=truth[start : start + 128], predictions=scores[start : start + 128])
    assert metric.compute() == whole
    assert all(isinstance(value, float) for value in metrics.scalars(whole).values())
    assert {"auc", "accuracy", "ece"} <= set(metrics.scalars(whole))


def test_accuracy_equals_that_of_evaluates_image_classification_evaluator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # evaluate 0.4 still asks whether a pipeline is a TensorFlow model, a class that transformers 5 no longer has.
    monkeypatch.setattr(transformers, "TFPreTrainedModel", type("TFPreTrainedModel", (), {}), raising=False)
    truth, scores = softmax_scores(60, 2)

    class Accuracy(evaluate.Metric):
        """What evaluate's own accuracy script does; the script itself lies on the Hub."""

        def _info(self) -> evaluate.MetricInfo:
            number = datasets.Value("int32")
            features = datasets.Features({"predictions": number, "references": number})
            return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

        def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
            return {"accuracy": float(sk.accuracy_score(references, predictions))}

    class Pipe:
        """Answers as transformers' pipeline does; the image is its row number."""

        task = "image-classification"

        def __call__(self, images: list[int], **_: object) -> list[list[dict[str, object]]]:
            rows = [[{"label": f"c{j}", "score": float(s)} for j, s in enumerate(scores[i])] for i in images]
            return [sorted(row, key=lambda item: -float(str(item["score"]))) for row in rows]

    data = datasets.Dataset.from_dict({"image": list(range(60)), "label": truth.tolist()})
    result = evaluator("image-classification").compute(
        model_or_pipeline=Pipe(),
        data=data,
        metric=Accuracy(cache_dir=str(tmp_path)),
        label_mapping={"c0": 0, "c1": 1},
    )
    assert metrics.all_figures(truth, scores, labels=["fake", "real"], real_index=1)["accuracy"] == result["accuracy"]


def test_one_class_and_no_images_give_nan_where_nothing_is_defined() -> None:
    scores = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]
    only_fake = metrics.all_figures([0, 0, 0], scores, labels=["fake", "real"], real_index=1)
    for name in ("auc", "average_precision", "eer", "fpr", *LOW_FPRS):
        assert np.isnan(only_fake[name])
    assert only_fake["recall"] == pytest.approx(1 / 3)
    assert only_fake["balanced_accuracy"] == only_fake["accuracy"] == pytest.approx(1 / 3)
    assert np.isnan(only_fake["per_class"]["real"]["recall"])
    nothing = metrics.all_figures([], np.zeros((0, 2)), labels=["fake", "real"], real_index=1)
    assert nothing["n"] == 0
    assert np.isnan(list(metrics.scalars(nothing).values())).all()
    assert nothing["confusion_matrix"] == [[0, 0], [0, 0]]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 1.0, 1e-300, 1 - 1e-16])), min_size=1, max_size=30
    )
)
def test_figures_stay_in_range_on_ties_constants_and_certainties(rows: list[tuple[bool, float]]) -> None:
    fake, p = (np.array(column) for column in zip(*rows, strict=True))
    figures = metrics.all_figures((~fake).astype(int), np.stack([p, 1 - p], 1), labels=["fake", "real"], real_index=1)
    for name, value in metrics.scalars(figures).items():
        assert np.isnan(value) or (0 <= value <= 1) or (name == "log_loss" and value >= 0), name
    if 0 < fake.sum() < len(fake):
        assert figures["auc"] == pytest.approx(sk.roc_auc_score(fake, p), abs=1e-12)
        assert figures["eer"] <= 0.5 or figures["auc"] < 0.75
        if len(set(p)) == 1:
            assert figures["auc"] == figures["eer"] == 0.5


def test_scores_that_are_no_probabilities_are_refused() -> None:
    for bad in ([[2.0, -1.0]], [[0.5, 0.6]], [[np.nan, 0.5]], [0.5, 0.5], [[1.0]]):
        with pytest.raises(ValueError, match="scores"):
            fake_probability(bad, 0)
    single = np.float32([[0.1, 0.7, 0.2]])  # rounding of half and single precision is fine
    assert fake_probability(single, 1)[0] == pytest.approx(0.3, abs=1e-7)
    with pytest.raises(ValueError, match="no class 5"):
        fake_probability([[0.5, 0.5]], 5)


def test_the_predictions_table_has_its_columns_and_survives_parquet(tmp_path: Path) -> None:
    frame = table(50, source="cam", group=[str(i // 2) for i in range(50)])
    assert list(frame.columns) == ["path", "split", "source", "group", "label", "prediction", "p_fake", "p_real"]
    frame.to_parquet(tmp_path / "p.parquet")
    assert metrics.table_metrics(
        pd.read_parquet(tmp_path / "p.parquet"), ["fake", "real"], "real"
    ) == metrics.table_metrics(frame, ["fake", "real"], "real")
    names = predictions_frame([[0.4, 0.6]], ["fake"], labels=["fake", "real"], real_label="real", path=["a"])
    assert names.loc[0, ["label", "prediction", "p_fake"]].tolist() == ["fake", "real", 0.4]
    with pytest.raises(ValueError, match="cat"):
        predictions_frame([[0.4, 0.6]], ["cat"], labels=["fake", "real"], real_label="real", path=["a"])


def test_a_class_named_fake_among_three_does_not_hide_p_fake() -> None:
    truth, scores = softmax_scores(40, 3)
    frame = predictions_frame(scores, truth, labels=THREE, real_label="real", path=[str(i) for i in range(40)])
    assert frame["p_fake"].to_numpy() == pytest.approx(scores[:, 0] + scores[:, 2])
    assert score_matrix(frame, THREE) == pytest.approx(scores)


def test_paths_that_are_not_utf8_do_not_break_the_table(tmp_path: Path) -> None:
    frame = predictions_frame([[0.4, 0.6]], [0], labels=["fake", "real"], real_label="real", path=["a\udcff.jpg"])
    frame.to_parquet(tmp_path / "p.parquet")
    assert pd.read_parquet(tmp_path / "p.parquet").loc[0, "path"] == "a\\udcff.jpg"


def test_each_source_is_judged_against_the_whole_other_side() -> None:
    frame = table(900)
    rows = metrics.per_source(frame, real_label="real").set_index(["label", "source"])
    fake = frame["label"] == "fake"
    for (label, source), row in rows.iterrows():
        part = frame[((frame["label"] == label) & (frame["source"] == source)) | (fake == (label == "real"))]
        assert row["auc"] == pytest.approx(sk.roc_auc_score(part["label"] == "fake", part["p_fake"]), abs=1e-12)
        assert row["auc_low"] < row["auc"] < row["auc_high"]
        own = frame[(frame["label"] == label) & (frame["source"] == source)]
        rate = (own["prediction"] == "fake").mean()
        assert row["fpr" if label == "real" else "recall"] == pytest.approx(rate)
        assert row["rate_low"] < rate < row["rate_high"]
        assert row["n"] == len(own)
    strict = metrics.per_source(frame, real_label="real", threshold=0.99)
    assert strict["fpr"].max() < rows["fpr"].max()
    assert strict.index.tolist() == list(range(len(strict)))
    highest = frame.loc[fake, "p_fake"].max()
    assert metrics.per_source(frame, real_label="real", threshold=highest)["recall"].max() > 0


def test_small_sources_are_listed_but_never_the_worst() -> None:
    columns = metrics.SOURCE_COLUMNS
    rows = pd.DataFrame(
        [
            ["cam", "real", True, 60, 0.9, 0.8, 1.0, np.nan, 0.1, 0, 1],
            ["webcam", "real", True, 60, 0.7, 0.6, 0.9, np.nan, 0.0, 0, 1],
            ["phone", "real", True, 49, 0.9, 0.8, 1.0, np.nan, 0.9, 0, 1],
            ["gan", "fake", False, 50, 0.8, 0.7, 0.9, 0.7, np.nan, 0, 1],
            ["diffusion", "fake", False, 50, 0.9, 0.7, 1.0, 0.6, np.nan, 0, 1],
            ["tiny", "fake", False, 49, 0.1, 0.0, 0.9, 0.0, np.nan, 0, 1],
        ],
        columns=columns,
    )
    summary = metrics.source_summary(rows)
    assert summary["worst_fake"] == {"source": "gan", "label": "fake", "n": 50, "auc": 0.8, "recall": 0.7}
    assert summary["worst_real"] == {"source": "cam", "label": "real", "n": 60, "auc": 0.9, "fpr": 0.1}
    assert summary["macro_auc"] == pytest.approx(0.6)
    assert summary["macro_recall"] == pytest.approx(1.3 / 3)
    assert summary["macro_fpr"] == pytest.approx(1.0 / 3)
    assert metrics.source_summary(rows[:0])["worst_fake"] is None


@pytest.mark.parametrize("labels", [("fake", "real"), ("edited", "real", "fake")])
def test_the_bootstraps_figures_are_the_same_figures(labels: tuple[str, ...]) -> None:
    """With one stratum an image, every draw is the table itself: the resampled figure must be the figure."""
    frame = table(120, labels, source=[str(i) for i in range(120)])
    samples = metrics.table_samples(frame, BOOTSTRAP_FIGURES, real_label="real", n_resamples=3)
    found = metrics.table_metrics(frame, labels, "real")
    for name, values in samples.items():
        assert values == pytest.approx([found[name]] * 3, abs=1e-12), name


def test_bootstrap_intervals_cover_the_truth_and_repeat_with_the_seed() -> None:
    """A coverage of 95 % over 150 tables of 150 images, against the figures of a table of 60,000."""
    figures = ["auc", "accuracy", "recall", "fpr", "brier"]
    truth = metrics.table_metrics(table(60_000, seed=1), ["fake", "real"], "real")
    hits = dict.fromkeys(figures, 0)
    for seed in range(150):
        intervals = metrics.bootstrap(table(150, seed=seed + 2), figures, real_label="real", n_resamples=200)
        for name in figures:
            hits[name] += intervals[name].low <= truth[name] <= intervals[name].high
    assert all(0.88 <= count / 150 <= 0.99 for count in hits.values()), hits
    one, two = (metrics.bootstrap(table(), figures, real_label="real", seed=5) for _ in range(2))
    assert one == two
    assert one != metrics.bootstrap(table(), figures, real_label="real", seed=6)


def test_perfect_scores_do_not_get_an_interval_of_no_width() -> None:
    scores = np.repeat([[1.0, 0.0], [0.0, 1.0]], [10, 30], axis=0)
    frame = predictions_frame(
        scores, [0] * 10 + [1] * 30, labels=["fake", "real"], real_label="real", path=[str(i) for i in range(40)]
    )
    intervals = metrics.bootstrap(frame, real_label="real", n_resamples=50)
    assert intervals["accuracy"] == pytest.approx((0.025 ** (1 / 40), 1.0))
    assert intervals["auc"] == intervals["balanced_accuracy"] == pytest.approx((0.025 ** (1 / 10), 1.0))
    assert intervals["recall"] == pytest.approx((0.025 ** (1 / 10), 1.0))
    assert intervals["fpr"] == pytest.approx((0.0, 1 - 0.025 ** (1 / 30)))
    assert np.isnan(intervals["average_precision"]).all()


def test_bootstrap_of_one_class_or_nothing_is_nan_not_an_error() -> None:
    frame = table(30)
    reals = frame[frame["label"] == "real"]
    intervals = metrics.bootstrap(reals, real_label="real", n_resamples=20)
    assert np.isnan(intervals["auc"]).all()
    assert np.isfinite(intervals["fpr"]).all()
    assert np.isnan(metrics.bootstrap(frame[:0], real_label="real", n_resamples=20)["accuracy"]).all()
    assert metrics.per_source(frame[:0], real_label="real").empty


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.5000001, 0.9, 1.0]), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.005, 0.01, 0.05, 0.29, 0.5, 1.0]),
)
def test_threshold_keeps_its_false_alarm_rate_and_is_the_lowest_that_does(p_real: list[float], fpr: float) -> None:
    scores = np.array(p_real)
    threshold = metrics.threshold_at_fpr(scores, fpr)
    assert (scores >= threshold).mean() <= fpr + 1e-9
    if threshold > 0:
        assert (scores >= np.nextafter(threshold, -np.inf)).mean() > fpr + 1e-9


def test_verdicts_are_counted_as_their_names_say() -> None:
    fake = [True, True, True, True, False, False, False]
    called = ["fake", "fake", "real", "uncertain", "fake", "real", "real"]
    figures = metrics.verdict_figures(fake, called)
    assert figures == pytest.approx({"band_recall": 0.5, "band_fpr": 1 / 3, "uncertain": 1 / 7, "band_error": 2 / 6})
    assert np.isnan(metrics.verdict_figures([True], ["uncertain"])["band_error"])


def test_folds_without_a_figure_do_not_count_in_its_mean() -> None:
    assert metrics.over_folds([0.8, np.nan, 0.9]) == pytest.approx({"mean": 0.85, "sd": np.sqrt(0.005), "n": 2})
    single = metrics.over_folds([0.8])
    assert (single["mean"], single["n"]) == (0.8, 1)
    assert np.isnan(single["sd"])


def test_figures_are_plain_numbers_that_json_takes() -> None:
    figures = metrics.table_metrics(table(), ["fake", "real"], "real")
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
