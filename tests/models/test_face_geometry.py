"""Measures of a face, on a drawn face whose answers are known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from models.face_geometry import face_axes, measure, mesh_distance

MOUTH_CORNERS = [61, 291]
BROWS = [70, 63, 105, 66, 107, 300, 293, 334, 296, 336]
LOWER_LIP = [87, 14, 317]
LOWER_LIDS = [144, 145, 153, 380, 374, 373]


def drawn_face() -> NDArray[np.float32]:
    """A flat frontal face, [1, 468, 3]: eyes 80 px apart at y 120, closed mouth at y 190, lids 8 px apart.

    The brows are at y 104.
    """
    face = np.zeros((468, 3), dtype=np.float32)
    face[[234, 454], :2] = [[60, 140], [196, 140]]
    face[[10, 152], :2] = [[128, 50], [128, 230]]
    face[[33, 133, 362, 263], :2] = [[88, 120], [112, 120], [144, 120], [168, 120]]
    for indices, y in (([160, 159, 158, 385, 386, 387], 116), (LOWER_LIDS, 124)):
        face[indices, :2] = np.stack([np.array([94, 100, 106, 150, 156, 162]), np.full(6, y)], axis=1)
    for indices in ([82, 13, 312], LOWER_LIP):
        face[indices, :2] = [[120, 190], [128, 190], [136, 190]]
    face[BROWS, :2] = np.stack([np.linspace(84, 172, len(BROWS)), np.full(len(BROWS), 104)], axis=1)
    face[MOUTH_CORNERS, :2] = [[104, 190], [152, 190]]
    face[[58, 172, 288, 397], :2] = [[70, 190], [80, 205], [186, 190], [176, 205]]
    return face[None]


def turned(face: NDArray[np.float32], yaw: float, pitch: float = 0.0) -> NDArray[np.float32]:
    """The face looking `yaw` degrees to the image's right and `pitch` degrees up, around (128, 140, 0)."""
    a, b = np.radians(yaw), np.radians(pitch)
    # A point on the nose (negative z) must move to positive x for yaw and to negative y for pitch.
    about_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    centre = np.array([128.0, 140.0, 0.0])
    return ((face - centre) @ (about_y @ about_x).T + centre).astype(np.float32)


def test_a_neutral_face_measures_what_was_drawn() -> None:
    measures = measure(drawn_face())
    assert measures.smile[0] == pytest.approx(0.0, abs=1e-5)
    assert measures.mouth_open[0] == pytest.approx(0.0, abs=1e-5)
    assert measures.mouth_width[0] == pytest.approx(48 / 80, rel=1e-4)
    assert measures.eyes_open[0] == pytest.approx(8 / 24, rel=1e-4)
    assert measures.brows[0] == pytest.approx(16 / 80, rel=1e-4)
    assert measures.yaw_deg[0] == pytest.approx(0.0, abs=1e-3)
    assert measures.pitch_deg[0] == pytest.approx(0.0, abs=1e-3)


def test_raised_corners_smile_and_a_lowered_lip_opens_the_mouth() -> None:
    face = drawn_face()
    face[:, MOUTH_CORNERS, 1] -= 8.0
    assert measure(face).smile[0] == pytest.approx(0.1, rel=1e-3)
    face[:, LOWER_LIP, 1] += 16.0
    assert measure(face).mouth_open[0] == pytest.approx(0.2, rel=1e-3)


def test_closing_the_eyes_lowers_their_aspect() -> None:
    face = drawn_face()
    face[:, LOWER_LIDS, 1] -= 8.0
    assert measure(face).eyes_open[0] == pytest.approx(0.0, abs=1e-5)


def test_raised_brows_stand_higher() -> None:
    face = drawn_face()
    face[:, BROWS, 1] -= 8.0
    assert measure(face).brows[0] == pytest.approx(24 / 80, rel=1e-4)


@pytest.mark.parametrize(("yaw", "pitch"), [(25.0, 0.0), (-40.0, 0.0), (0.0, 20.0), (0.0, -15.0)])
def test_pose_is_read_with_its_sign(yaw: float, pitch: float) -> None:
    measures = measure(turned(drawn_face(), yaw, pitch))
    assert measures.yaw_deg[0] == pytest.approx(yaw, abs=0.1)
    assert measures.pitch_deg[0] == pytest.approx(pitch, abs=0.1)


def test_the_face_measures_the_same_when_it_turns() -> None:
    face = drawn_face()
    face[:, MOUTH_CORNERS, 1] -= 6.0
    front, side = measure(face), measure(turned(face, 35.0, 10.0))
    for name in ("smile", "mouth_width", "mouth_open", "eyes_open", "brows", "jaw_width"):
        assert getattr(side, name) == pytest.approx(getattr(front, name), abs=1e-3), name


def test_the_axes_are_a_rotation() -> None:
    axes = face_axes(turned(drawn_face(), 30.0, -12.0))
    assert axes @ axes.transpose(0, 2, 1) == pytest.approx(np.eye(3)[None], abs=1e-5)
    assert np.linalg.det(axes) == pytest.approx(1.0, abs=1e-5)


def test_meshes_are_compared_in_the_picture_by_the_distance_of_the_eyes():
    face, moved = drawn_face(), drawn_face() + np.array([3.0, -4.0, 50.0], np.float32)
    assert mesh_distance(face, moved)[0] == pytest.approx(5.0 / 80.0)
    assert mesh_distance(face, face)[0] == 0.0
