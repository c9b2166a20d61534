"""One person is one track, two are two, and a cut never joins strangers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bonaface.imaging.faces import Box
from bonaface.video.scenes import distance, look_of, same_scene
from bonaface.video.tracks import Tracker, overlaps

STUDIO, STREET = (look_of(Image.new("RGB", (96, 54), colour)) for colour in ("teal", "wheat"))


def box(x: float, y: float = 100, side: float = 80) -> Box:
    return (x, y, x + side, y + side)


def test_two_who_move_keep_their_numbers_in_whatever_order_they_are_found() -> None:
    tracker = Tracker()
    for step in range(20):
        left, right = box(50 + 10 * step), box(600 - 10 * step, 220)
        found = tracker.follow(STUDIO, [left, right] if step % 2 else [right, left])
        assert found == ([1, 0] if step % 2 else [0, 1])


def test_one_who_is_missed_for_a_while_is_the_same() -> None:
    tracker = Tracker()
    assert tracker.follow(STUDIO, [box(50), box(300)]) == [0, 1]
    assert tracker.follow(STUDIO, [box(302)]) == [1]
    assert tracker.follow(STUDIO, []) == []
    assert tracker.follow(STUDIO, [box(55), box(305)]) == [0, 1]


def test_a_lone_face_that_jumps_is_the_same_but_a_newcomer_is_not() -> None:
    tracker = Tracker()
    assert tracker.follow(STUDIO, [box(50)]) == [0]
    assert tracker.follow(STUDIO, [box(500)]) == [0]
    assert tracker.follow(STUDIO, [box(500), box(50)]) == [0, 1]
    assert Tracker().follow(STUDIO, []) == []
    tracker = Tracker()
    tracker.follow(STUDIO, [box(50, side=40)])
    assert tracker.follow(STUDIO, [box(500, side=200)]) == [1]


def test_a_cut_ends_a_track_and_the_same_camera_takes_it_up_again() -> None:
    tracker = Tracker()
    shots = [STUDIO, STUDIO, STREET, STREET, STUDIO, STREET]
    assert [tracker.follow(look, [box(100)])[0] for look in shots] == [0, 0, 1, 1, 0, 1]


boxes = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), *[st.floats(0, 500)] * 2, *[st.floats(1, 300)] * 2)


@given(st.lists(st.lists(boxes, max_size=5), max_size=6))
def test_every_face_has_one_track_and_no_track_two_faces_of_a_frame(frames: list[list[Box]]) -> None:
    tracker = Tracker()
    for faces in frames:
        found = tracker.follow(STUDIO, faces)
        assert len(found) == len(set(found)) == len(faces)


def test_overlap_is_intersection_over_union() -> None:
    assert overlaps([box(0)], [box(0), box(40), box(80)])[0] == pytest.approx([1, 1 / 3, 0])


def test_a_scene_is_another_by_its_colours_not_by_what_moves_in_it() -> None:
    rng = np.random.default_rng(0)
    ground = Image.fromarray(rng.integers(80, 140, (180, 320, 3), dtype=np.uint8))
    looks = []
    for x in (10, 150):
        frame = ground.copy()
        frame.paste((200, 150, 120), (x, 60, x + 60, 120))
        looks.append(look_of(frame.point(lambda level, x=x: level + (x > 100))))  # and the light changes a little
    assert same_scene(*looks)
    assert not same_scene(looks[0], STREET)
    assert distance(STUDIO, STREET) == pytest.approx(1)
    assert distance(STUDIO, STUDIO) == pytest.approx(0, abs=1e-3)
