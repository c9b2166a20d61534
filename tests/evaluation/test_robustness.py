"""The robustness table is the metrics' own figures, variant by variant, and its words follow from it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bonaface.evaluation.robustness import (
    all_variants,
    robustness_lead,
    robustness_remark,
    robustness_section,
    robustness_table,
    worst_rows,
)
from bonaface.models.facts import Calibration, ModelFacts
from bonaface.report import plots, style
from bonaface.stats import metrics
from bonaface.stats.certificates import Band

VARIANTS = all_variants(quick=True)
FACTS = ModelFacts(band=Band(0.3, 0.7), calibration=Calibration(2.0, (0.1, -0.1), folded=True))


def scores(n: int = 80, harm: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, variants, 2), worse for each strong variant; fakes are every second image, class 0."""
    rng = np.random.default_rng(0)
    fake = np.arange(n) % 2 == 0
    strong = np.array([harm * (i > 0 and i % 2 == 0) for i in range(len(VARIANTS))])
    logit = np.where(fake, 2.0, -2.0)[:, None] * (1 - strong) + rng.normal(size=(n, len(VARIANTS)))
    p = 1 / (1 + np.exp(-logit))
    return fake, np.stack([p, 1 - p], axis=2)


def test_each_row_is_what_the_metrics_say() -> None:
    fake, probabilities = scores()
    table = robustness_table(fake, probabilities, VARIANTS, real_index=1, facts=FACTS)
    assert list(zip(table["degradation"], table["strength"], strict=True)) == VARIANTS
    for i in (0, 2, 9):
        expected = metrics.all_figures(1 - fake.astype(int), probabilities[:, i], labels=["fake", "real"], real_index=1)
        row, p = table.iloc[i], probabilities[:, i, 0]
        for name in ("auc", "recall", "fpr", "ece"):
            assert row[name] == pytest.approx(expected[name])
        for name in ("auc", "recall", "fpr"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
        assert row["uncertain"] == ((p > 0.3) & (p < 0.7)).mean()
        assert row["accused"] == (p[~fake] >= 0.7).mean()
        assert row["missed"] == (p[fake] <= 0.3).mean()
        assert row["ece_before"] != row["ece"]


def test_without_facts_there_is_no_band_and_no_before() -> None:
    fake, probabilities = scores()
    table = robustness_table(fake, probabilities, VARIANTS, real_index=1, facts=ModelFacts())
    assert table[["uncertain", "missed", "accused", "ece_before"]].isna().all(axis=None)


def test_the_words_name_the_worst() -> None:
    fake, probabilities = scores()
    table = robustness_table(fake, probabilities, VARIANTS, real_index=1, facts=FACTS)
    worst = worst_rows(table)
    assert len(worst) == len(set(table["degradation"])) - 1
    assert worst["auc"].is_monotonic_increasing
    assert worst["auc"][0] == table["auc"].min()
    remark = robustness_remark(table)
    assert f"lowers its AUC most is {worst['degradation'][0]} (" in remark
    assert f"{100 * table['fpr'].max():.1f}\N{NO-BREAK SPACE}% of the real images fake" in remark
    calm = robustness_table(
        *scores(harm=0.0)[:1], np.repeat(probabilities[:, :1], len(VARIANTS), 1), VARIANTS, real_index=1, facts=FACTS
    )
    assert "No degradation" in robustness_remark(calm)


def test_one_class_gives_a_section_without_auc() -> None:
    fake, probabilities = scores()
    table = robustness_table(fake[fake], probabilities[fake], VARIANTS, real_index=1, facts=FACTS)
    assert robustness_remark(table) == ""
    assert robustness_lead(table) == []
    section = robustness_section(table)
    assert isinstance(section.data, pd.DataFrame)
    assert table["recall"].notna().all()
    assert table["fpr"].isna().all()


def test_the_plots_show_every_degradation() -> None:
    fake, probabilities = scores()
    table = robustness_table(fake, probabilities, VARIANTS, real_index=1, facts=FACTS)
    axis = plots.degradation_overview(table, theme=style.DARK).axes[0]
    assert {text.get_text() for text in axis.get_yticklabels()} == set(table["degradation"]) - {""}
    part = table[table["degradation"].isin(["", "jpeg"])]
    axis = plots.degradation_curves(part).axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["none", "95", "30"]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), part["auc"])
    np.testing.assert_allclose(axis.lines[2].get_ydata(), part["fpr"])
