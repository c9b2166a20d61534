"""Figures in which every source counts once: their intervals are those of the means, drawn again within sources."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from bonaface.stats import metrics
from bonaface.stats.intervals import resample_weights
from bonaface.stats.sources import metrics_by_source


def table(sizes: dict[tuple[str, str], int], seed: int = 0) -> pd.DataFrame:
    """A table of predictions with so many images of each (label, source), harder ones in later sources."""
    rng = np.random.default_rng(seed)
    rows = [(label, source, i) for i, ((label, source), n) in enumerate(sizes.items()) for _ in range(n)]
    p = [1 / (1 + np.exp(-rng.normal((1.5 - 0.4 * i) * (1 if label == "fake" else -1)))) for label, _, i in rows]
    found = pd.DataFrame({"label": [row[0] for row in rows], "source": [row[1] for row in rows], "p_fake": p})
    return found.assign(prediction=np.where(found["p_fake"] >= 0.5, "fake", "real"))


def test_one_source_a_side_gives_the_intervals_of_the_plain_figures() -> None:
    rows = table({("fake", "gan"): 40, ("real", "cam"): 60})
    plain = metrics.bootstrap(rows, ["auc", "recall", "fpr"], real_label="real", n_resamples=200, seed=3)
    found = metrics_by_source(rows, real_label="real", n_resamples=200, seed=3)
    for name in ("auc", "recall", "fpr"):
        assert found[f"macro_{name}"] == pytest.approx(plain[name], abs=1e-12)


def test_every_source_counts_once_whatever_its_size() -> None:
    """Against the definition: each source's figure on the drawn images, then their plain mean."""
    rows = table({("fake", "gan"): 10, ("fake", "sd"): 50, ("real", "cam"): 15, ("real", "phone"): 40})
    strata = rows.groupby(["label", "source"], sort=True).ngroup().to_numpy()
    weights = np.concatenate(list(resample_weights(strata, 60, 5)))
    real, source = (rows["label"] == "real").to_numpy(), rows["source"].to_numpy()
    called = (rows["prediction"] == "fake").to_numpy()

    def mean(names: tuple[str, str], figure) -> np.ndarray:
        return np.array([np.mean([figure(source == name, row) for name in names]) for row in weights])

    def share(mine: np.ndarray, row: np.ndarray) -> float:
        return float(np.average(called[mine], weights=row[mine]))

    def auc(mine: np.ndarray, row: np.ndarray) -> float:
        both = mine | real
        return float(sk.roc_auc_score(~real[both], rows["p_fake"][both], sample_weight=row[both]))

    expected = {
        "macro_auc": mean(("gan", "sd"), auc),
        "macro_recall": mean(("gan", "sd"), share),
        "macro_fpr": mean(("cam", "phone"), share),
    }
    found = metrics_by_source(rows, real_label="real", n_resamples=60, seed=5)
    for name, samples in expected.items():
        assert found[name] == pytest.approx(tuple(np.quantile(samples, [0.025, 0.975])), abs=1e-12)


def test_without_one_side_its_figures_have_no_interval() -> None:
    only = metrics_by_source(table({("fake", "gan"): 20}), real_label="real", n_resamples=20)
    assert np.isnan(only["macro_auc"]).all()
    assert np.isnan(only["macro_fpr"]).all()
    assert np.isfinite(only["macro_recall"]).all()


def test_sources_judged_alike_throughout_have_no_interval() -> None:
    """Resampling images that were all called right shows no spread; an interval of no width would be a false claim."""
    table = pd.DataFrame({"label": ["real"] * 6 + ["fake"] * 6, "source": ["cam"] * 6 + ["gan"] * 6})
    table["p_fake"] = [0.1] * 6 + [0.9] * 5 + [0.3]
    table["prediction"] = ["real"] * 6 + ["fake"] * 5 + ["real"]
    found = metrics_by_source(table, real_label="real", n_resamples=50)
    assert np.isnan(found["macro_fpr"]).all()
    assert found["macro_recall"].low < 5 / 6 < found["macro_recall"].high


def test_a_source_of_one_image_counts_as_a_source() -> None:
    found = metrics_by_source(table({("fake", "gan"): 20, ("fake", "one"): 1, ("real", "cam"): 20}), real_label="real")
    assert np.isfinite(found["macro_recall"]).all()
