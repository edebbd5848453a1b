"""A recording of a source that goes on: its sound in step, its encoder, and what is left of it when it breaks off."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame

from app.encoders import HARDWARE, LIVE_X264, Encoder, live_encoder
from app.recorder import Recorder
from app.sources import Source, SourceInfo, open_playing, open_source
from app.video_sink import FileSink
from engine.errors import SinkError, SourceError
from engine.frames import EditedFrame, Phase
from tests.app.clips import SOUND_HZ, clip, numbered, numbers_in

RATE = 25
PERIOD = 25
"""A flash and a beep every so many frames."""
IN_STEP_MS = 40.0

_RECORD = """
import sys
from app.recorder import Recorder
from app.sources import open_playing
from engine.frames import EditedFrame, Phase
source, recorder = open_playing(sys.argv[1]), Recorder()
recorder.follow((sys.argv[2],), source.info, compare=False)
while True:
    frame = source.read()
    recorder.write(EditedFrame(frame.index, frame.captured_ns, frame.image, Phase.TRACKING, {}), frame.image)
    print(frame.index, flush=True)
"""

_BROADCAST = """
import sys, time
import av
with av.open(sys.argv[1]) as file, av.open(f"tcp://127.0.0.1:{sys.argv[2]}?listen=1", "w", format="mpegts") as output:
    targets = {stream.index: output.add_stream_from_template(stream) for stream in file.streams}
    began_s, first_s = time.monotonic(), None
    for packet in file.demux():
        if packet.dts is None:
            continue
        at_s = float(packet.dts * packet.time_base)
        first_s = at_s if first_s is None else first_s
        time.sleep(max(began_s + at_s - first_s - time.monotonic(), 0))
        packet.stream = targets[packet.stream.index]
        output.mux(packet)
"""
"""Sends a file as a stream, each packet at its time."""


def beeping_clip(path: Path, seconds: int = 3) -> Path:
    """Black, and every second a white frame with a beep that begins with it, half a second in."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream("aac", rate=SOUND_HZ, layout="stereo")
        for index in range(seconds * RATE):
            level = 235 if index % PERIOD == 12 else 16
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="bgr24")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
        place = np.arange(seconds * SOUND_HZ)
        beep = (place % SOUND_HZ >= 12 * SOUND_HZ // RATE) & (place % SOUND_HZ < 14 * SOUND_HZ // RATE)
        tone = (np.sin(place * 1000 * 2 * np.pi / SOUND_HZ) * 20000 * beep).astype(np.int16)
        sound = AudioFrame.from_ndarray(np.repeat(tone, 2)[None], format="s16", layout="stereo")
        sound.sample_rate, sound.pts = SOUND_HZ, 0
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=SOUND_HZ, frame_size=1024)
        for part in (*resampler.resample(sound), *resampler.resample(None)):
            container.mux(track.encode(part))
        container.mux(track.encode(None))
    return path


def flashes_s(path: Path) -> list[float]:
    """When the picture turns white."""
    with av.open(str(path)) as container:
        seen = [
            (float(frame.time), frame.to_ndarray(format="gray").mean() > 128) for frame in container.decode(video=0)
        ]
    return [at for (at, white), (_, before) in zip(seen[1:], seen, strict=False) if white and not before]


def beeps_s(path: Path) -> list[float]:
    """When the sound sets in."""
    with av.open(str(path)) as container:
        parts = [(float(frame.time), frame.to_ndarray()[0]) for frame in container.decode(audio=0)]
    times = np.concatenate([at + np.arange(len(part)) / SOUND_HZ for at, part in parts])
    loud = times[np.abs(np.concatenate([part for _, part in parts])) > 0.1]
    return [
        float(at) for at, before in zip(loud, np.concatenate(([-1.0], loud[:-1])), strict=True) if at - before > 0.3
    ]


def record(source: Source, path: Path, frames: int, keep: Callable[[int], bool] = lambda count: True) -> None:
    """Records so many frames; keep: which of them an engine would have had time for."""
    recorder = Recorder()
    recorder.follow((str(path),), source.info, compare=False)
    for count in range(frames):
        frame = source.read()
        assert frame is not None
        if keep(count):
            recorder.write(EditedFrame(count, frame.captured_ns, frame.image, Phase.TRACKING, {}), frame.image)
    recorder.follow((), None, compare=False)
    assert not recorder.problem


@pytest.mark.parametrize("begins_at", [0, 17])
def test_sound_is_in_step_over_the_end_of_the_file(tmp_path: Path, begins_at: int) -> None:
    """begins_at: frames that are over when the recording starts."""
    out = tmp_path / "out.mp4"
    with open_playing(str(beeping_clip(tmp_path / "in.mp4", seconds=2))) as source:
        for _ in range(begins_at):
            source.read()
        record(source, out, 4 * RATE)
    seen, heard = flashes_s(out), beeps_s(out)
    assert len(seen) == len(heard) == 4
    offsets_ms = 1e3 * (np.array(heard) - np.array(seen))
    assert np.abs(offsets_ms).max() < IN_STEP_MS, offsets_ms


def test_sound_is_in_step_where_the_engine_drops_frames(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with open_playing(str(beeping_clip(tmp_path / "in.mp4"))) as source:
        record(source, out, 3 * RATE, keep=lambda count: count % 5 == 2)
    offsets_ms = 1e3 * (np.array(beeps_s(out)) - np.array(flashes_s(out)))
    assert len(offsets_ms) == 3
    assert np.abs(offsets_ms).max() < IN_STEP_MS, offsets_ms


def test_a_killed_recording_plays_up_to_the_last_second(tmp_path: Path) -> None:
    source, out = beeping_clip(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    program = [sys.executable, "-c", _RECORD, str(source), str(out)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        for _ in range(4 * RATE):
            running.stdout.readline()
        os.kill(running.pid, signal.SIGKILL)
    (left,) = tmp_path.glob("out.*.part.mp4")
    with av.open(str(left)) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    assert times[-1] > 1.5, "of four seconds the last fragment and what the encoder held back are lost"
    assert np.diff(times) == pytest.approx(1 / RATE, abs=0.005)
    offsets_ms = 1e3 * (np.array(beeps_s(left)[:2]) - np.array(flashes_s(left)[:2]))
    assert np.abs(offsets_ms).max() < IN_STEP_MS, offsets_ms


def test_a_whole_recording_has_its_name_and_an_index(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with open_playing(str(clip(tmp_path / "in.mp4", 60))) as source:
        record(source, out, 60)
    assert numbers_in(out) == list(range(60))
    assert [path.name for path in tmp_path.glob("out*")] == ["out.mp4"]
    with av.open(str(out)) as container:
        assert container.duration == pytest.approx(2_400_000, rel=0.02)


def test_a_recording_that_ends_before_it_began_leaves_nothing(tmp_path: Path) -> None:
    beeping = beeping_clip(tmp_path / "in.mp4", seconds=1)
    with open_playing(str(beeping)) as source:
        record(source, tmp_path / "out.mp4", 0)
    assert list(tmp_path.iterdir()) == [beeping]


def test_a_source_without_sound_is_recorded_without(tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    with open_playing(str(clip(tmp_path / "in.mp4", 10))) as source:
        record(source, out, 10)
    with av.open(str(out)) as container:
        assert not container.streams.audio


class _Full:
    """An encoder whose disk is full."""

    def encode(self, frame: object) -> None:
        raise OSError(28, "No space left on device")


def test_what_was_recorded_is_kept_when_the_disk_is_full(tmp_path: Path) -> None:
    info = SourceInfo("camera", 64, 48, 25.0, live=True)
    sink = FileSink(tmp_path / "out.mp4", info, compare=False)

    def write(number: int) -> None:
        sink.write(EditedFrame(number, number * 40_000_000, numbered(number), Phase.TRACKING, {}), numbered(number))

    for number in range(100):
        write(number)
    stream, sink._stream = sink._stream, _Full()
    with pytest.raises(SinkError, match=r"free some space; what was recorded is in .*part\.mp4"):
        write(100)
    sink._stream = stream
    sink.discard()
    (left,) = tmp_path.iterdir()
    assert len(numbers_in(left)) > 50


def test_an_encoder_of_a_card_is_taken_only_where_it_works(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    chosen = live_encoder()
    assert chosen in (*HARDWARE, LIVE_X264)
    broken, works = Encoder("libx264", "no such format"), Encoder("libx264", options={"preset": "ultrafast"})
    for candidates, expected in (((Encoder("unheard of"), broken, works), works), ((broken,), LIVE_X264)):
        monkeypatch.setattr("app.encoders.HARDWARE", candidates)
        live_encoder.cache_clear()
        caplog.clear()
        assert live_encoder() is expected
        assert "recordings are encoded by libx264" in caplog.text
    live_encoder.cache_clear()


@pytest.mark.slow
def test_the_sound_of_a_stream_is_in_step(tmp_path: Path) -> None:
    sent, out = beeping_clip(tmp_path / "in.ts", seconds=12), tmp_path / "out.mp4"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, "-c", _BROADCAST, str(sent), str(port)]) as station:
        try:
            with _tuned_in(f"tcp://127.0.0.1:{port}") as source:
                assert source.info.live
                for _ in range(RATE // 2):
                    source.read()
                record(source, out, 8 * RATE)
        finally:
            station.kill()
    seen, heard = np.array(flashes_s(out)), np.array(beeps_s(out))
    nearest_ms = 1e3 * np.abs(seen[:, None] - heard[None]).min(axis=1)
    assert len(seen) >= 7
    assert np.median(nearest_ms) < IN_STEP_MS, (seen, heard)


def _tuned_in(location: str) -> Source:
    give_up = time.monotonic() + 20
    while True:
        try:
            return open_source(location)
        except SourceError:
            assert time.monotonic() < give_up
            time.sleep(0.05)
