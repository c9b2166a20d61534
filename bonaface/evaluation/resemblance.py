"""The section on which known generators fakes are most like.

Its data, in ``metrics.json`` under ``sections``, ``resembles``: ``right`` (fakes of known sources whose own is the
nearest), ``none_known`` and ``none_unseen`` (fakes that are like none), each {n, share, low, high} with Clopper and
Pearson's bounds (share null where n is 0), and ``sources``: rows of source, known, n, right, none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bonaface.models.facts import ResemblesFacts
from bonaface.report.pages import Block, Section, Table, cell
from bonaface.stats.figures import percent, span
from bonaface.stats.intervals import Interval, clopper_pearson

WHAT = (
    "For an image called fake, the generators of the training data that its features are nearest to are named, or none "
    "of them. It is no part of the verdict. These figures are of all fakes, whatever they are called."
)


def resembles_section(fakes: pd.DataFrame, stored: ResemblesFacts, trained: Sequence[str]) -> Section:
    """``fakes`` of a predictions table, with its columns ``nearest_…``.

    Fakes from those of the ``trained`` sources that are too small to be named are neither known nor unseen.
    """
    rows = fakes.assign(
        known=fakes["source"].isin(stored.sources),
        right=fakes["nearest_source"] == fakes["source"],
        none=fakes["nearest_distance"] >= stored.threshold,
    )
    rows = rows[rows["known"] | ~rows["source"].isin(trained)]
    known, unseen = rows[rows["known"]], rows[~rows["known"]]
    figures = {
        "right": _share(known["right"]),
        "none_known": _share(known["none"]),
        "none_unseen": _share(unseen["none"]),
    }
    text = [WHAT]
    if small := len(fakes) - len(rows):
        text.append(f"{small:,} are left out: they come from generators with too few training images to be named.")
    if len(known):
        text.append(
            f"Of {len(known):,} from the {len(stored.sources)} known generators, the nearest was right for "
            f"{_told(figures['right'])}, and {_told(figures['none_known'])} were like none."
        )
    if len(unseen):
        text.append(f"Of {len(unseen):,} from unseen generators, {_told(figures['none_unseen'])} were like none.")
    groups = rows.groupby(["source", "known"], sort=True)
    table = groups.agg(n=("none", "size"), right=("right", "mean"), none=("none", "mean")).reset_index()
    shown = table.rename(columns={"known": "named", "n": "images", "none": "like none"})
    blocks: list[Block] = [" ".join(text), in_training(stored), Table(shown, "By generator", folded=True)]
    return Section("resembles", "Most like", blocks, data={**figures, "sources": table}, brief=True)


def in_training(stored: ResemblesFacts) -> str:
    """What the model's own facts say it is worth."""
    return (
        f"In training, of {stored.n:,} held-out fakes from known generators, the nearest was right for "
        f"{percent(stored.accuracy)} {span('recall', Interval(stored.accuracy_low, stored.accuracy_high))}; always "
        f"naming the largest gives {percent(stored.chance)}. With each generator left out in turn, "
        f"{percent(stored.none_left_out)} of its fakes were like none, compared with {percent(stored.none_known)} of "
        f"all with none left out (AUROC {cell(stored.auc)} {span('auc', Interval(stored.auc_low, stored.auc_high))})."
    )


def _share(hits: pd.Series) -> dict[str, Any]:
    low, high = clopper_pearson(hits.sum(), len(hits))
    share = float(hits.mean()) if len(hits) else np.nan
    return {"n": len(hits), "share": share, "low": float(low), "high": float(high)}


def _told(figure: dict[str, Any]) -> str:
    return f"{percent(figure['share'])} {span('recall', Interval(figure['low'], figure['high']))}"
