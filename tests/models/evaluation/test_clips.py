"""Finding, reading and aligning clips, with a tracker that follows a script."""

import wave
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.detection import Detection
from engine.errors import SourceError
from engine.frames import ImageU8
from engine.geometry import align
from engine.tracking import FaceTrack
from models.evaluation.clips import align_clip, clip_names, find_clips, read_frames
from tests.engine.fakes import HEIGHT, WIDTH, face, picture


class Script:
    """A tracker that sees, on each frame, the track of that number, or nothing where the number is 0."""

    def __init__(self, track_ids: Sequence[int]) -> None:
        self._track_ids = list(track_ids)

    def track(
        self, tracks: tuple[FaceTrack, ...], image_u8: ImageU8, captured_ns: int, wanted: int
    ) -> tuple[FaceTrack, ...]:
        track_id = self._track_ids.pop(0)
        return (face(track_id=track_id),) if track_id else ()

    def detect(self, image_u8: ImageU8, threshold: float) -> list[Detection]:
        raise NotImplementedError


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten frames, lossless, each with a picture of its own."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 25, (WIDTH, HEIGHT))
    for n in range(10):
        writer.write(picture(n))
    writer.release()
    return path


def test_frames_come_in_order_with_rising_times(clip: Path) -> None:
    frames = list(read_frames(clip, limit=100))
    assert [frame.index for frame in frames] == list(range(10))
    assert np.diff([frame.captured_ns for frame in frames]).min() >= 1_000_000
    assert frames[4].captured_ns == pytest.approx(4 * 40_000_000, abs=2_000_000)
    np.testing.assert_array_equal(frames[7].image, picture(7))


def test_limit(clip: Path) -> None:
    assert len(list(read_frames(clip, limit=3))) == 3


def test_the_longest_run_of_one_person_is_kept(clip: Path) -> None:
    # Person 1 twice, with a gap; then person 2 without a gap.
    aligned = align_clip(clip, Script([1, 1, 1, 0, 1, 1, 2, 2, 2, 2]), limit=100)
    assert (aligned.first_frame, aligned.frames_in, len(aligned.crops)) == (6, 10, 4)
    expected = align(picture(6), face().crop_from_frame)[..., ::-1]
    np.testing.assert_array_equal(aligned.crops[0], expected)
    assert aligned.name == "clip.avi"
    np.testing.assert_array_equal(aligned.crop_from_frame, [face().crop_from_frame] * 4)


def test_a_gap_ends_a_run(clip: Path) -> None:
    aligned = align_clip(clip, Script([1, 1, 0, 1, 1, 1, 0, 1, 1, 0]), limit=100)
    assert (aligned.first_frame, len(aligned.crops)) == (3, 3)


def test_a_clip_without_a_face_is_refused(clip: Path) -> None:
    with pytest.raises(SourceError, match="no face in 3 frames"):
        align_clip(clip, Script([0, 1, 1, 0, 2, 0, 0, 0, 0, 0]), limit=100)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("not a video")
    with pytest.raises(SourceError, match="cannot be decoded"):
        list(read_frames(path, limit=10))
    sound = tmp_path / "sound.wav"
    with wave.open(str(sound), "wb") as stream:
        stream.setparams((1, 2, 8000, 0, "NONE", ""))
        stream.writeframes(bytes(1600))
    with pytest.raises(SourceError, match="no video"):
        list(read_frames(sound, limit=10))


def test_folders_give_their_clips_sorted(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.MOV", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in find_clips([tmp_path])] == ["a.MOV", "b.mp4"]
    assert find_clips([tmp_path / "b.mp4"]) == [tmp_path / "b.mp4"]


def test_a_clip_counts_once_and_has_a_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name in ("a.mp4", "b.mp4", "more/a.mp4"):
        (tmp_path / name).touch()
    found = find_clips([tmp_path, tmp_path / "more", tmp_path / "b.mp4"])
    assert found == [tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "more" / "a.mp4"]
    assert list(clip_names(found).values()) == [str(found[0]), "b.mp4", str(found[2])]


def test_absent_and_empty_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        find_clips([tmp_path / "absent.mp4"])
    with pytest.raises(SourceError, match="no clip"):
        find_clips([tmp_path])
