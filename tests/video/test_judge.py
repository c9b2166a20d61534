"""Clips judged: a row for each person, and one image repeated gets that image's own score."""

from __future__ import annotations

from pathlib import Path

import pytest
from clips import clip_detector, clip_model, portrait, scene, turned, write_video
from PIL import Image

from bonaface.imaging.images import ImageError
from bonaface.inference.detector import Detector
from bonaface.inference.reader import NO_FACE
from bonaface.video.frames import Sampling
from bonaface.video.judge import judge_clip


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return clip_detector(clip_model(tmp_path_factory.mktemp("model")))


def gif(path: Path, frames: list[Image.Image], **options: object) -> Path:
    """Lossless, as PNG."""
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, **options)
    return path


@pytest.mark.parametrize(
    ("size", "faces", "n"),
    [
        ((160, 160), None, 100),
        ((400, 400), None, 100),
        ((400, 400), True, 20),
        ((640, 360), None, 20),
        ((640, 360), False, 20),
    ],
    ids=["a crop", "a portrait", "its face", "far away", "the whole"],
)
def test_one_image_repeated_has_the_images_own_score_and_verdict(
    detector: Detector, tmp_path: Path, size: tuple[int, int], faces: bool | None, n: int
) -> None:
    """The frames differ in one pixel at the border each, or the file would have one frame."""
    image = portrait(0, 400) if size == (400, 400) else scene((0, 0, 0), size=size)
    frames = [image.copy() for _ in range(n)]
    for i, frame in enumerate(frames):
        frame.putpixel((size[0] - 1, size[1] - 1), (i, i, i))
    found = judge_clip(str(gif(tmp_path / "a.png", frames)), detector, Sampling(most=100), faces=faces)
    alone = detector([image], faces=faces)[0]
    (person,) = found.persons
    assert len(person.sightings) == n
    assert person.p_fake == pytest.approx(alone.p_fake, abs=1e-5)
    assert person.verdict == alone.verdict
    assert person.outside_band == float(alone.verdict != "uncertain")


def test_nor_does_it_grow_through_an_encoder(detector: Detector, tmp_path: Path) -> None:
    image = scene((0, 200, 80))
    found = judge_clip(str(write_video(tmp_path / "a.mp4", [image] * 100)), detector)
    (person,) = found.persons
    assert person.p_fake == pytest.approx(detector([image])[0].p_fake, abs=0.02)
    spread = [s.p_fake for s in person.sightings]
    assert min(spread) <= person.p_fake <= max(spread)


def test_two_persons_have_a_row_each(detector: Detector, tmp_path: Path) -> None:
    """Left and right, towards each other; the right one comes later and goes again."""
    frames = [scene((0, 5 + i, 60), *[(5, 390 - i, 80)] * (10 <= i < 40), side=240) for i in range(50)]
    found = judge_clip(str(write_video(tmp_path / "a.mp4", frames)), detector)
    left, right = found.persons
    assert (left.start, left.end) == (pytest.approx(0, abs=0.1), pytest.approx(1.96, abs=0.1))
    assert (right.start, right.end) == (pytest.approx(0.4, abs=0.1), pytest.approx(1.56, abs=0.1))
    assert len(left.sightings) > 40
    assert 25 <= len(right.sightings) <= 31
    assert all(s.box and s.box[2] < 330 for s in left.sightings)
    assert all(s.box and s.box[0] > 320 for s in right.sightings)
    assert not found.warnings
    assert found.worst is max(found.persons, key=lambda person: person.p_fake)


def test_an_upright_phone_clip_is_judged_upright(detector: Detector, tmp_path: Path) -> None:
    """Lying faces are not found: that one is, shows that the frame was turned."""
    lying = scene((0, 100, 200), size=(360, 640)).transpose(Image.Transpose.ROTATE_90)
    found = judge_clip(str(turned(write_video(tmp_path / "a.mp4", [lying] * 5))), detector)
    assert found.size == (360, 640)
    assert found.persons[0].middle.box is not None
    assert NO_FACE not in found.warnings


def test_a_cut_clip_is_judged_as_far_as_it_goes_and_says_so(detector: Detector, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", (scene((0, 20 + i, 60)) for i in range(150)))
    path.write_bytes(path.read_bytes()[: 6 * path.stat().st_size // 10])
    found = judge_clip(str(path), detector)
    assert found.persons[0].end < 5
    assert any(w.startswith("cut off: only ") and w.endswith("of 6.0 s can be read") for w in found.warnings)


def test_without_faces_whole_frames_are_judged_with_a_warning(detector: Detector, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [scene()] * 5)
    found = judge_clip(str(path), detector)
    assert found.warnings == (NO_FACE,)
    (person,) = found.persons
    assert person.middle.box is None
    assert person.p_fake == pytest.approx(detector([scene()])[0].p_fake, abs=0.02)


def test_a_face_seen_once_beside_others_is_no_person_but_counted(detector: Detector, tmp_path: Path) -> None:
    frames = [scene((0, 10, 60), *[(5, 380, 80)] * (i == 10), side=240) for i in range(20)]
    found = judge_clip(str(write_video(tmp_path / "a.mp4", frames)), detector)
    assert len(found.persons) == 1
    assert found.warnings == ("1 more face seen too briefly to judge",)


def test_it_can_be_stopped_and_limited(detector: Detector, tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "a.mp4", [scene((0, 10, 60))] * 50))
    seen: list[tuple[int, int]] = []

    def stop(done: int, most: int) -> None:
        seen.append((done, most))
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        judge_clip(path, detector, progress=stop)
    assert seen == [(1, 64), (2, 64), (3, 64)]
    with pytest.raises(ImageError, match="limit"):
        judge_clip(path, detector, longest=1)
