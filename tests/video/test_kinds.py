"""What is judged as a clip: by content, and by name only where there is nothing to read."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from bonaface.imaging.images import is_image_name
from bonaface.imaging.inputs import find_inputs
from bonaface.video.kinds import is_clip, is_input_name

MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(40)


def picture(kind: str, n: int) -> bytes:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")[:n]]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=n > 1, append_images=frames[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.mp4", MP4, True),
        ("a", MP4, True),
        ("a.bin", b"\x1aE\xdf\xa3" + bytes(40), True),
        ("a.mp4", b"no video at all, but its row says so", True),
        ("a.jpg", MP4, False),  # its row says what it contains
        ("a.gif", MP4, False),
        ("a.txt", b"some text", False),
        *[(f"a.{kind.lower()}", picture(kind, n), n > 1) for kind in ("GIF", "PNG", "WEBP", "AVIF") for n in (1, 3)],
        ("a.png", picture("PNG", 3)[:60], False),
        ("a.jpg", picture("GIF", 3), False),
    ],
)
def test_a_clip_is_known_by_its_content(tmp_path: Path, name: str, data: bytes, expected: bool) -> None:
    (tmp_path / name).write_bytes(data)
    assert is_clip(str(tmp_path / name)) == expected


def test_names_decide_where_there_is_nothing_to_read(tmp_path: Path) -> None:
    assert is_clip(str(tmp_path / "none.mov"))
    assert not is_clip(str(tmp_path / "none.png"))
    assert not is_clip(str(tmp_path))


def test_folders_give_clips_only_where_they_are_wanted(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.MP4", "c.webm", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).write_bytes(b"x")
    found = [[Path(p).name for p in find_inputs([tmp_path], wanted=w)] for w in (is_input_name, is_image_name)]
    assert found == [["a.JPG", "b.MP4", "c.webm"], ["a.JPG"]]
