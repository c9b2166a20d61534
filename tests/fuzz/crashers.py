"""Inputs that broke a reader's promise once: the target's name, and the bytes."""

from __future__ import annotations

import io
import zipfile

import pandas as pd


def packed(packing: int) -> bytes:
    """A zip whose member is damaged in its packed bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as file:
        file.writestr("a.png", bytes(range(256)) * 20)
    data = bytearray(buffer.getvalue())
    data[60:70] = b"\xff" * 10
    return bytes(data)


def noted_types() -> bytes:
    """A table in which pandas noted a type that there is not."""
    rows = pd.DataFrame({"fold": ["a", "b"], "source": ["x", "y"], "label": ["real", "fake"], "p_fake": [0.1, 0.9]})
    return rows.to_parquet(compression=None).replace(b'"numpy_type": "str"', b'"numpy_type": "stP"')


JOURNAL = b'{"batch_size": 2, "model": "m"}\n'

CRASHERS: list[tuple[str, bytes]] = [
    ("journal", JOURNAL + b'{"path": "a\xff"}\n'),  # not UTF-8
    ("journal", JOURNAL + bytes(40) + b"\n"),  # zeros, as a file system leaves them when the power fails
    ("journal", JOURNAL + b'["path"]\n'),
    ("journal", b"[]\n"),
    ("journal", b'{"batch_size": "two"}\n{}\n'),
    ("journal", b'{"batch_size": 99999999999999999999}\n{}\n'),
    ("archive", packed(zipfile.ZIP_LZMA)),
    ("archive", packed(zipfile.ZIP_BZIP2)),
    ("predictions", noted_types()),
    ("predictions", noted_types().replace(b"real", b"r\xbfal")),  # text that is not UTF-8
    ("metadata.csv", b"file_name,label\na\x01\x00.jpg,real\nb.jpg,fake\n"),
]
