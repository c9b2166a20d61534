"""Tables of Parquet, which may come from someone else."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.parquet


def read_parquet(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The table, or some of its columns, with a plain index.

    What pandas once noted in the file about its types is not followed: they are those of the columns.

    Raises:
        ValueError: the file is damaged, or lacks one of the columns.
        OSError: it cannot be read.
    """
    try:
        table = pa.parquet.read_table(
            os.fspath(path), columns=None if columns is None else list(columns), partitioning=None
        )
        if missing := set(columns or ()) - set(table.column_names):
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        table.validate(full=True)  # else text that is not UTF-8 fails where somebody looks at it
        return table.to_pandas(ignore_metadata=True)
    except (pa.ArrowException, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"the table is damaged ({type(error).__name__})") from error
