"""The video file that comes out: every frame at its time, the sound, the size, and nothing when it fails."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from app.sinks import check_sinks, open_sink
from app.sources import ColourTags, SourceInfo, open_source
from app.video_sink import fitted
from engine.errors import RigidError, SinkError, UsageError
from engine.frames import CameraFrame, EditedFrame, ImageU8, Phase
from tests.app.clips import SOUND_HZ, clip, numbered, numbers_in, sound_packets, times_in, write_clip


def _info(width: int = 64, height: int = 48, **more: object) -> SourceInfo:
    return SourceInfo("test", width, height, 25.0, **more)


def _edited(image: ImageU8, index: int) -> EditedFrame:
    return EditedFrame(index, index * 40_000_000, image, Phase.TRACKING, {})


def _write(path: Path, images: list[ImageU8], info: SourceInfo, *, compare: bool = False) -> None:
    sink = open_sink(str(path), info, compare=compare)
    for index, image in enumerate(images):
        sink.write(_edited(image, index), numbered(0, image.shape[1], image.shape[0]))
    sink.finish(whole=True)
    sink.discard()


def _copy(source: Path, target: Path, *, limit: int | None = None) -> None:
    """Sends a file through a sink unedited."""
    with open_source(str(source)) as opened:
        sink = open_sink(str(target), opened.info, compare=False)
        count = 0
        while count != limit and (frame := opened.read()) is not None:
            sink.write(_as_edited(frame), frame.image)
            count += 1
        sink.finish(whole=limit is None)


def _as_edited(frame: CameraFrame) -> EditedFrame:
    return EditedFrame(frame.index, frame.captured_ns, frame.image, Phase.TRACKING, {})


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".mkv"])
def test_every_frame_is_in_the_file_and_nothing_else_in_the_folder(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    _write(path, [numbered(index) for index in range(30)], _info())
    assert numbers_in(path) == list(range(30))
    assert list(tmp_path.iterdir()) == [path]


def test_a_variable_frame_rate_stays_one(tmp_path: Path) -> None:
    times = [0, 40, 50, 200, 1000, 1001, 1500]
    source = write_clip(tmp_path / "in.mkv", [numbered(i) for i in range(7)], times=times)
    for name in ("out.mkv", "out.mp4"):
        _copy(source, tmp_path / name)
        assert numbers_in(tmp_path / name) == list(range(7))
        np.testing.assert_allclose(times_in(tmp_path / name), np.array(times) / 1000, atol=0.002)


@pytest.mark.parametrize(("source", "codec"), [("in.mp4", "aac"), ("in.mkv", "libopus"), ("in.ts", "aac")])
def test_sound_is_copied_bit_for_bit_and_in_step(tmp_path: Path, source: str, codec: str) -> None:
    _copy(clip(tmp_path / source, 40, sound=codec), tmp_path / "out.mp4")
    copied, original = sound_packets(tmp_path / "out.mp4"), sound_packets(tmp_path / source)
    if source != "in.ts":  # there each packet has an ADTS header, which MP4 does without
        assert copied == original
    assert len(copied) == len(original) > 30
    assert abs(_sound_offset(tmp_path / "out.mp4") - _sound_offset(tmp_path / source)) < 0.005


def _sound_offset(path: Path) -> float:
    """How much later than the picture the sound starts, in seconds."""
    with av.open(str(path)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        return float(sound.start_time * sound.time_base - video.start_time * video.time_base)


def test_sound_that_the_output_cannot_hold_is_encoded_anew(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mkv", 40, sound="pcm_u8")
    _copy(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        sound = container.streams.audio[0]
        assert sound.codec.canonical_name == "aac"
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(sound)])
    assert len(samples) / SOUND_HZ == pytest.approx(40 / 25, abs=0.06)
    assert np.abs(samples).max() == pytest.approx(8000 / 32768, rel=0.2)
    assert _loudest_hz(samples) == pytest.approx(440, abs=3)


def _loudest_hz(samples: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * SOUND_HZ / len(samples))


def test_sound_ends_with_the_picture_when_only_a_part_is_wanted(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4", 50, sound="aac")
    _copy(source, tmp_path / "out.mp4", limit=25)
    whole, part = sound_packets(source), sound_packets(tmp_path / "out.mp4")
    assert part == whole[: len(part)]
    assert len(part) * 1024 / SOUND_HZ == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (65, 47), (3840, 2160), (20, 400)])
def test_pictures_of_any_size_are_written(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "out.mp4"
    _write(path, [np.full((height, width, 3), 90, np.uint8)] * 2, _info(width, height))
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        assert len(frames) == 2
        assert (frames[0].width, frames[0].height) == (width + width % 2, height + height % 2)
        assert np.abs(frames[0].to_ndarray(format="bgr24").astype(int) - 90).max() <= 3


def test_a_frame_of_another_size_is_fitted_into_the_first_ones(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    tall = np.full((96, 32, 3), 200, np.uint8)
    _write(path, [numbered(3), numbered(5, 128, 96), tall], _info())
    with av.open(str(path)) as container:
        images = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert [image.shape for image in images] == [(48, 64, 3)] * 3
    assert numbers_in(path)[:2] == [3, 5]
    assert images[2][:, 28:36].mean() > 180
    assert images[2][:, :20].mean() < 20


def test_fitting_leaves_a_picture_of_the_right_size_alone() -> None:
    image = numbered(1)
    assert fitted(image, (64, 48)) is image


def test_before_and_after_stand_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    _write(path, [np.full((48, 64, 3), 220, np.uint8)] * 3, _info(), compare=True)
    with av.open(str(path)) as container:
        image = next(container.decode(video=0)).to_ndarray(format="bgr24")
    assert image.shape == (48, 128, 3)
    assert image[:, :60].mean() < 60  # the original that `_write` hands over is dark
    assert image[:, 68:].mean() > 200


@pytest.mark.parametrize("height", [48, 720])
@pytest.mark.parametrize("matrix", [1, 2, 6])
def test_colours_come_out_as_they_went_in(tmp_path: Path, height: int, matrix: int) -> None:
    image = np.empty((height, 64, 3), np.uint8)
    image[:, :32], image[:, 32:] = (40, 60, 210), (180, 190, 30)
    path = tmp_path / "out.mkv"
    _write(path, [image] * 3, _info(64, height, colour=ColourTags(matrix)))
    with open_source(str(path)) as source:
        assert source.info.colour.matrix == matrix
        frame = source.read()
    assert frame is not None
    difference = np.abs(frame.image.astype(int) - image)[:, [8, 24, 40, 56]]
    assert difference.max() <= 4


def test_a_pixel_that_is_not_square_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    _write(path, [numbered(0)] * 3, _info(pixel_aspect=Fraction(16, 15)))
    with open_source(str(path)) as source:
        assert source.info.pixel_aspect == Fraction(16, 15)


def test_discarding_leaves_nothing_and_spares_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_text("precious", encoding="utf-8")
    sink = open_sink(str(path), _info(), compare=False)
    sink.write(_edited(numbered(0), 0), numbered(0))
    sink.discard()
    sink.discard()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text(encoding="utf-8") == "precious"


def test_without_a_frame_there_is_no_file(tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / "out.mp4"), _info(), compare=False)
    sink.finish(whole=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nowhere/out.mp4", SinkError),
        ("folder.mp4", SinkError),
        ("file.txt/out.mp4", SinkError),
        ("out.webm", UsageError),
        ("out", UsageError),
        ("rtmp://127.0.0.1/live", UsageError),
        ("in.mp4", UsageError),
        ("../{folder}/in.mp4", UsageError),
    ],
)
def test_a_sink_that_cannot_be_opened_is_refused_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: type[RigidError]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file.txt").touch()
    (tmp_path / "in.mp4").touch()
    with pytest.raises(error):
        check_sinks((name.format(folder=tmp_path.name),), "in.mp4")


def test_one_file_cannot_be_two_sinks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="twice"):
        check_sinks((f"{tmp_path}/a.mp4", f"{tmp_path}/../{tmp_path.name}/a.mp4"), "demo")
    check_sinks(("null", "null", f"{tmp_path}/a.mp4"), "demo")


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = open_sink(str(tmp_path / "out.mp4"), _info(), compare=False)
    sink.write(_edited(numbered(0), 0), numbered(0))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(SinkError, match="No space left"):
        sink.finish(whole=True)
    sink.discard()
    assert list(tmp_path.iterdir()) == []
