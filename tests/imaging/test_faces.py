"""Faces: boxes in the image's own pixels, crops that leave no hole, and a detector that is found without waiting."""

from __future__ import annotations

import pickle
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bonaface.errors import UsageError
from bonaface.imaging import faces
from bonaface.imaging.faces import (
    TINY_FACE,
    Face,
    FaceDetector,
    MainFace,
    crop_face,
    face_square,
    find_main_face,
    find_yunet,
)
from bonaface.imaging.images import load_image


def gradient(width: int, height: int) -> Image.Image:
    """Red says the column, green the row, blue is constant."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x % 256, y % 256, np.full_like(x, 77)], axis=2).astype(np.uint8))


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(faces.YUNET_ENV, raising=False)
    monkeypatch.setattr(faces, "_yunet_from_hub", lambda: None)


# --- crops -------------------------------------------------------------------------------------------------------


def test_crop_inside_is_the_square_around_the_box() -> None:
    crop = np.asarray(crop_face(gradient(200, 150), (50, 40, 90, 70), margin=0.25))
    assert crop.shape == (60, 60, 3)  # the longer side, 40, and a quarter of it on both sides
    assert crop[0, 0].tolist() == [40, 25, 77]
    assert crop[-1, -1].tolist() == [99, 84, 77]


def test_crop_beyond_the_border_is_filled_by_reflection() -> None:
    crop = np.asarray(crop_face(gradient(100, 100), (0, 0, 20, 20), margin=0.5))
    assert crop.shape == (40, 40, 3)
    assert crop[10, 10].tolist() == [0, 0, 77]
    assert crop[10, 9].tolist() == [0, 0, 77]
    assert crop[10, 0].tolist() == [9, 0, 77]
    assert crop[0, 10].tolist() == [0, 9, 77]


def test_crop_clamps_a_box_that_leaves_the_image() -> None:
    inside, beyond = (crop_face(gradient(80, 60), box, margin=0.1) for box in ((40, 20, 80, 60), (40, 20, 300, 400)))
    assert inside.tobytes() == beyond.tobytes()


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(*[st.floats(-200, 200)] * 2),
    st.tuples(*[st.floats(0.1, 300)] * 2),
    st.floats(0, 2),
    st.none() | st.integers(1, 64),
)
def test_any_box_gives_a_square_of_the_images_own_colours_or_an_error(
    size: tuple[int, int], corner: tuple[float, ...], extent: tuple[float, ...], margin: float, side: int | None
) -> None:
    image = gradient(*size)
    box = (corner[0], corner[1], corner[0] + extent[0], corner[1] + extent[1])
    try:
        crop = crop_face(image, box, margin=margin, size=side)
    except ValueError:
        assert min(box[2], size[0]) - max(box[0], 0) < 1 or min(box[3], size[1]) - max(box[1], 0) < 1
        return
    assert crop.size[0] == crop.size[1]
    assert crop.size[0] == (side or crop.size[0])
    pixels = np.asarray(crop)
    assert (pixels[:, :, 2] == 77).all()  # black padding would show here
    assert pixels[:, :, 0].max() < size[0] or side is not None


@pytest.mark.parametrize(
    ("box", "margin", "size"), [((0, 0, 9, 9), -0.1, None), ((0, 0, 9, 9), 0.1, 0), ((30, 0, 40, 9), 0, 8)]
)
def test_a_senseless_crop_is_refused(box: faces.Box, margin: float, size: int | None) -> None:
    with pytest.raises(ValueError, match=r"box|margin"):
        crop_face(gradient(20, 20), box, margin=margin, size=size)


# --- which face --------------------------------------------------------------------------------------------------


def test_no_face_means_the_centre_square() -> None:
    main = find_main_face(gradient(100, 60), [])
    assert (main.status, main.box, main.n_faces) == ("none", (20, 0, 80, 60), 0)


def test_the_largest_of_several_is_meant() -> None:
    found = [Face((0, 0, 50, 60), 0.8), Face((60, 0, 80, 20), 0.99)]
    main = find_main_face(gradient(100, 60), found)
    assert (main.status, main.box, main.n_faces) == ("several", (0, 0, 50, 60), 2)


def test_a_tiny_face_is_flagged() -> None:
    small = Face((0, 0, TINY_FACE + 5, TINY_FACE - 1), 0.9)
    assert find_main_face(gradient(100, 60), [small]).status == "tiny"
    assert find_main_face(gradient(100, 60), [Face((0, 0, TINY_FACE, TINY_FACE), 0.9)]).status == "ok"


# --- which detector ----------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    corner=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    extent=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    margin=st.floats(0, 2),
)
def test_the_face_square_lies_inside_and_is_as_large_as_it_can(
    size: tuple[int, int], corner: tuple[float, float], extent: tuple[float, float], margin: float
) -> None:
    x0, y0 = corner[0] * size[0], corner[1] * size[1]
    box = (x0, y0, min(x0 + extent[0] * size[0], size[0]), min(y0 + extent[1] * size[1], size[1]))
    left, top, right, bottom = face_square(Image.new("RGB", size), MainFace(box, "ok", 0.9, 1), margin)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert right - left == bottom - top
    wanted = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * margin)
    assert right - left == max(1, min(round(wanted), *size))
    # It is centred on the face unless the border is in the way.
    assert abs((left + right) / 2 - (box[0] + box[2]) / 2) <= 1 or left == 0 or right == size[0]


def test_a_face_at_the_border_gives_real_pixels_only() -> None:
    """No reflection: the square is moved inside."""
    image = Image.new("RGB", (60, 40))
    square = face_square(image, MainFace((50.0, 0.0, 60.0, 12.0), "ok", 0.9, 1), 0.25)
    assert square == (42, 0, 60, 18)
    centre = face_square(image, find_main_face(image, []), 0.25)
    assert centre == (10, 0, 50, 40)  # the whole centre square: no margin around what is no face


def test_without_weights_haar_takes_over_and_says_so(no_weights: None) -> None:
    detector = FaceDetector()
    assert "Haar" in detector.name
    assert detector.detect(gradient(64, 48)) == []


def test_insisting_on_yunet_without_weights_is_an_error(no_weights: None) -> None:
    with pytest.raises(UsageError, match="not found"):
        FaceDetector(kind="yunet")


def test_named_weights_must_exist_and_be_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no YuNet weights"):
        find_yunet(tmp_path / "missing.onnx")
    monkeypatch.setenv(faces.YUNET_ENV, str(tmp_path / "absent.onnx"))
    with pytest.raises(UsageError, match="BONAFACE_YUNET"):
        find_yunet()
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(UsageError, match="not a YuNet model"):
        FaceDetector(tmp_path / "text.onnx")
    with pytest.raises(UsageError, match="unknown face detector"):
        FaceDetector(kind="dlib")


def test_an_unreachable_hub_is_asked_once_and_briefly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The Hub's own client retries for half a minute; one refused connection must be enough."""
    asked = []

    def refuse(*args: object, **kwargs: object) -> None:
        asked.append(args)
        raise socket.gaierror("no network in a test")

    monkeypatch.delenv(faces.YUNET_ENV, raising=False)
    monkeypatch.setattr(faces, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(faces.constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr(faces, "get_hf_file_metadata", refuse)
    faces._yunet_from_hub.cache_clear()
    try:
        assert find_yunet() is None
        assert find_yunet() is None
    finally:
        faces._yunet_from_hub.cache_clear()
    assert len(asked) == 1


def test_offline_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(faces.YUNET_ENV, raising=False)
    monkeypatch.setattr(faces, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(faces.constants, "is_offline_mode", lambda: True)
    monkeypatch.setattr(faces, "get_hf_file_metadata", lambda *_, **__: pytest.fail("the Hub was asked"))
    faces._yunet_from_hub.cache_clear()
    try:
        assert find_yunet() is None
    finally:
        faces._yunet_from_hub.cache_clear()


def test_a_detector_travels_to_another_process(no_weights: None) -> None:
    assert pickle.loads(pickle.dumps(FaceDetector(threshold=0.7))).threshold == 0.7


# --- on faces ----------------------------------------------------------------------------------------------------


def picked(faces_dir: Path, each: int) -> list[Path]:
    return [path for folder in sorted(faces_dir.glob("*/*/")) for path in sorted(folder.iterdir())[:each]]


@pytest.mark.faces
def test_yunet_finds_nearly_all_faces_and_threads_agree(faces_dir: Path, yunet_weights: Path) -> None:
    detector = FaceDetector(yunet_weights)
    images = [load_image(path) for path in picked(faces_dir, 8)]
    alone = [detector.detect(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(detector.detect, images))
    assert detector.name == "YuNet"
    assert np.mean([bool(found) for found in alone]) >= 0.99
    assert [[f.box for f in found] for found in alone] == [[f.box for f in found] for found in together]


@pytest.mark.faces
def test_boxes_are_in_the_images_own_pixels(faces_dir: Path, yunet_weights: Path) -> None:
    """A face box scales with the image, from far below to far above the size that the detector works at."""
    detector = FaceDetector(yunet_weights)
    image = load_image(next((faces_dir / "real" / "ffhq").iterdir())).resize((320, 320))
    base = np.array(detector.detect(image)[0].box) / 320
    for side in (64, 200, 900, 2000):
        face = detector.detect(image.resize((side, side)))[0]
        assert face.landmarks is not None
        np.testing.assert_allclose(np.array(face.box) / side, base, atol=0.06)
        eye_right, eye_left = face.landmarks[0], face.landmarks[1]
        assert face.box[0] < eye_right[0] < eye_left[0] < face.box[2]
        assert 0 <= face.score <= 1


@pytest.mark.faces
def test_a_small_face_in_a_large_image_is_found(faces_dir: Path, yunet_weights: Path) -> None:
    scene = Image.new("RGB", (2000, 1500), (90, 120, 90))
    scene.paste(load_image(next((faces_dir / "real" / "ffhq").iterdir())).resize((120, 120)), (900, 600))
    x0, y0, x1, y1 = FaceDetector(yunet_weights).detect(scene)[0].box
    assert 900 <= x0 < x1 <= 1020
    assert 600 <= y0 < y1 <= 720


@pytest.mark.faces
def test_haar_finds_most_faces_where_yunet_sees_them(faces_dir: Path, yunet_weights: Path) -> None:
    images = [load_image(path) for path in picked(faces_dir, 4)]
    yunet, haar = FaceDetector(yunet_weights), FaceDetector(kind="haar")
    found = [(yunet.detect(image)[0].box, haar.detect(image)) for image in images]
    hits = [(a, b[0].box) for a, b in found if b]
    assert len(hits) >= 0.8 * len(images)
    near = [abs(a[0] + a[2] - b[0] - b[2]) < a[2] - a[0] for a, b in hits]
    assert np.mean(near) >= 0.9
