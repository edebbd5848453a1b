"""Files and URLs as sources: every kind of video comes in upright, in BGR, whole and with its times."""

import functools
import gc
import http.server
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from app.sources import open_source
from app.video import VideoSource, open_container, sws_matrix, upright
from engine.errors import SourceError
from engine.frames import CameraFrame, ImageU8
from tests.app.clips import clip, cut, number_of, numbered, rotate_by_metadata, write_clip


def _read_all(path: Path, *, keep_partial: bool = False) -> list[CameraFrame]:
    frames = []
    with open_source(str(path), keep_partial=keep_partial) as source:
        while (frame := source.read()) is not None:
            frames.append(frame)
    return frames


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("plain.mp4", {}),
        ("grey.mkv", {"codec": "ffv1", "pixels": "gray"}),
        ("grey.mp4", {"pixels": "gray"}),
        ("ten_bit.mp4", {"pixels": "yuv420p10le"}),
        ("ten_bit_422.mkv", {"codec": "ffv1", "pixels": "yuv422p10le"}),
        ("full_range.mkv", {"pixels": "yuvj420p"}),
        ("old.mpg", {"codec": "mpeg1video"}),
        ("stream.ts", {}),
        ("old.avi", {"codec": "mpeg4"}),
        ("alpha.mov", {"codec": "png", "pixels": "rgba"}),
        ("with_sound.mp4", {"sound": "aac"}),
    ],
)
def test_every_frame_of_every_kind_of_video_is_read(tmp_path: Path, name: str, how: dict[str, str]) -> None:
    frames = _read_all(clip(tmp_path / name, **how))
    assert [number_of(frame.image) for frame in frames] == list(range(12))
    assert [frame.index for frame in frames] == list(range(12))
    assert all(frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8 for frame in frames)
    steps = np.diff([frame.captured_ns for frame in frames])
    np.testing.assert_allclose(steps, 40_000_000, atol=1_000_000)


@pytest.mark.parametrize(
    ("codec", "pixels"),
    [("ffv1", "yuv444p"), ("ffv1", "gray"), ("ffv1", "yuv444p10le"), ("ffv1", "bgr0"), ("mjpeg", "yuvj444p")],
)
def test_levels_survive_decoding(tmp_path: Path, codec: str, pixels: str) -> None:
    levels = np.linspace(0, 255, 64).astype(np.uint8)
    image = np.broadcast_to(levels[None, :, None], (48, 64, 3)).copy()
    path = write_clip(tmp_path / "ramp.mkv", [image], codec=codec, pixels=pixels)
    (frame,) = _read_all(path)
    np.testing.assert_allclose(frame.image.astype(int), image.astype(int), atol=3)


def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0, 40, 50, 200, 1000, 1001]
    path = write_clip(tmp_path / "vfr.mkv", [numbered(i) for i in range(6)], times=times)
    assert [round(frame.captured_ns / 1e6) for frame in _read_all(path)] == times


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    ],
)
def test_a_turned_phone_video_comes_in_upright(
    tmp_path: Path, matrix: tuple[int, int, int, int], expected: Callable[[ImageU8], ImageU8]
) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32], image[24:, :32] = 230, 120  # no two of its eight orientations are alike
    path = write_clip(tmp_path / "phone.mp4", [image] * 3, options={"movflags": "faststart"})
    rotate_by_metadata(path, matrix)
    with VideoSource(str(path)) as source:
        frame = source.read()
        assert frame is not None
        wanted = expected(image)
        assert (source.info.height_px, source.info.width_px) == wanted.shape[:2]
        assert np.abs(frame.image.astype(int) - wanted).mean() < 6


def test_upright_covers_all_eight_orientations_once() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    signs = (-1.0, 1.0)
    seen = {upright(image, (s, 0.0, 0.0, t)).tobytes() for s in signs for t in signs}
    seen |= {upright(image, (0.0, s, t, 0.0)).tobytes() for s in signs for t in signs}
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("name", "how", "opened"),
    [
        ("plain.mp4", {"sound": "aac"}, 0),
        ("plain.mkv", {}, 0),
        ("stream.ts", {}, 0),
        ("old.mpg", {"codec": "mpeg1video"}, 0),
        ("bare.h264", {}, 3),
    ],
)
def test_going_back_gives_the_same_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: dict[str, str], opened: int
) -> None:
    """From the end, and from the middle. opened: how often the file has to be opened anew for it."""

    def read_on() -> list[tuple[int, int, bytes]]:
        frames = iter(source.read, None)
        return [(frame.index, frame.captured_ns, frame.image.tobytes()) for frame in frames]

    calls = []
    with VideoSource(str(clip(tmp_path / name, 40, **how))) as source:
        monkeypatch.setattr("app.video.open_container", lambda at: calls.append(at) or open_container(at))
        first = read_on()
        source.rewind()
        assert read_on() == first
        source.rewind()
        source.read()
        source.rewind()
        assert read_on() == first
    assert len(first) == 40
    assert len(calls) == opened


def test_nothing_that_was_decoded_waits_for_the_cycle_collector(tmp_path: Path) -> None:
    """A few seconds of a large video are a gigabyte."""

    def kept(*names: str) -> int:
        return sum(type(each).__name__ in names for each in gc.get_objects())

    path = str(clip(tmp_path / "in.mp4", 40))
    gc.collect()
    gc.disable()
    try:
        before = kept("VideoFrame"), kept("InputContainer", "VideoCodecContext")
        with VideoSource(path) as source:
            while source.read() is not None:
                pass
        del source
        assert kept("VideoFrame") - before[0] <= 1, "the first, whose display matrix is read, is kept"
        assert kept("InputContainer", "VideoCodecContext") == before[1]
    finally:
        gc.enable()


def test_a_change_of_frame_size_comes_through(tmp_path: Path) -> None:
    small = clip(tmp_path / "small.ts", 5)
    large = write_clip(tmp_path / "large.ts", [numbered(i, 128, 96) for i in range(5)])
    small.write_bytes(small.read_bytes() + large.read_bytes())
    frames = _read_all(small)
    assert {frame.image.shape for frame in frames} == {(48, 64, 3), (96, 128, 3)}
    assert [number_of(frame.image) for frame in frames] == [*range(5), *range(5)]
    assert all(later.captured_ns > earlier.captured_ns for earlier, later in pairwise(frames))


@pytest.mark.parametrize(
    ("name", "how", "keep"),
    [
        ("moov_last.mp4", {}, 0.6),
        ("moov_first.mp4", {"options": {"movflags": "faststart"}}, 0.6),
        ("moov_first.mp4", {"options": {"movflags": "faststart"}}, 0.999),
        ("fragments.mp4", {"options": {"movflags": "frag_keyframe+empty_moov"}}, 0.6),
        ("matroska.mkv", {}, 0.6),
        ("matroska.mkv", {}, 0.999),
        ("old.mpg", {"codec": "mpeg1video"}, 0.6),
        ("old.mpg", {"codec": "mpeg1video"}, 0.9),
        ("newer.vob", {"codec": "mpeg2video"}, 0.6),
        ("newer.vob", {"codec": "mpeg2video"}, 0.9),
        ("old.avi", {"codec": "mpeg4"}, 0.6),
        ("old.avi", {"codec": "mpeg4"}, 0.999),
    ],
)
def test_a_truncated_video_fails(tmp_path: Path, name: str, how: dict[str, object], keep: float) -> None:
    rng = np.random.default_rng(0)
    images: list[ImageU8] = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(40)]
    path = write_clip(tmp_path / name, images, **how)
    assert len(_read_all(path)) == 40
    with pytest.raises(SourceError, match=r"truncated|corrupt|cannot be opened"):
        _read_all(cut(path, keep))


def test_a_truncated_gif_fails(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.gif", codec="gif", pixels="rgb8")
    assert [number_of(frame.image) for frame in _read_all(path)] == list(range(12))
    with pytest.raises(SourceError, match="truncated"):
        _read_all(cut(path, 0.7))


def test_a_truncated_video_is_read_as_far_as_it_goes_on_request(tmp_path: Path) -> None:
    path = cut(clip(tmp_path / "a.mkv", 40), 0.6)
    with open_source(str(path), keep_partial=True) as source:
        frames = iter(source.read, None)
        assert next(frames) is not None
        with pytest.raises(SourceError, match="truncated"):
            list(frames)


def _text(path: Path) -> Path:
    path.write_text("not a video\n" * 50, encoding="utf-8")
    return path


def _no_frames(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = 64, 48
        container.start_encoding()
    return path


def _sound_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        track = container.add_stream("aac", rate=44100, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate, silence.pts = 44100, 0
        container.mux(track.encode(silence))
        container.mux(track.encode(None))
    return path


def _empty(path: Path) -> Path:
    path.touch()
    return path


@pytest.mark.parametrize("make", [_text, _no_frames, _sound_only, _empty])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_holds_no_video_is_refused_in_one_line(tmp_path: Path, make: Callable[[Path], Path], suffix: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(str(make(tmp_path / f"bad{suffix}")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.mp4", ".", "http://127.0.0.1:9/a.mp4", "gopher9://x/y", "97"])
def test_a_source_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=name.partition("?")[0]):
        open_source(name)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_behind_a_url_is_read_like_a_file(tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    clip(tmp_path / "a.mkv")
    with open_source(f"{served}/a.mkv") as source:
        assert not source.info.live
        numbers = []
        while (frame := source.read()) is not None:
            numbers.append(number_of(frame.image))
    assert numbers == list(range(12))


def test_an_untagged_picture_is_taken_for_what_players_take_it() -> None:
    assert sws_matrix(2, 480) == 5
    assert sws_matrix(2, 720) == 1
    assert sws_matrix(1, 480) == 1
    assert sws_matrix(6, 1080) == 5
