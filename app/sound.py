"""The sound of a source on its way into an output: copied packet by packet, or encoded anew as AAC."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from numpy.typing import NDArray

from app.sound_tap import SOUND_HZ, SoundTap
from app.video import open_container

_AAC_RATES_HZ = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)

_AAC_SAMPLES = 1024
_JITTER = SOUND_HZ // 50
"""Pieces that are up to 20 ms away from each other follow each other: clocks are read, not kept."""
_LAYOUTS = {1: "mono", 6: "5.1"}


class SoundTrack:
    """The first sound stream of a file, written into an output in step with its picture.

    Packets are copied where the output's format takes their codec and are encoded as AAC where it does not.
    """

    def __init__(self, location: str, output: OutputContainer) -> None:
        """Adds the stream to the output, which must not have been started. SourceError when it cannot be read."""
        self._input = open_container(location)
        self._stream = self._input.streams.audio[0]
        self._output = output
        self._start_us = self._input.start_time or 0
        if self._stream.codec.canonical_name in output.supported_codecs:
            self._packets = self._copied(output.add_stream_from_template(self._stream))
        else:
            rate = self._stream.rate if self._stream.rate in _AAC_RATES_HZ else 48000
            encoded = output.add_stream("aac", rate=rate)
            encoded.layout = _LAYOUTS.get(self._stream.channels, "stereo")
            self._packets = self._encoded(encoded)
        self._pending: Packet[AudioStream] | None = None

    def write_until(self, end_ns: int | None) -> None:
        """Writes all sound that starts before end_ns, nanoseconds of the source's time; None writes the rest."""
        while (packet := self._peek()) is not None:
            if end_ns is not None and _time_ns(packet) >= end_ns:
                return
            self._output.mux(packet)
            self._pending = None

    def close(self) -> None:
        """Closes the source file."""
        self._input.close()

    def _peek(self) -> Packet[AudioStream] | None:
        if self._pending is None:
            self._pending = next(self._packets, None)
        return self._pending

    def _copied(self, target: AudioStream) -> Iterator[Packet[AudioStream]]:
        last: int | None = None
        for packet in self._input.demux(self._stream):
            if packet.dts is None or (last is not None and packet.dts <= last):
                continue  # the flush packet at the end; muxers refuse a time that does not move on
            last = packet.dts
            shift = round(Fraction(self._start_us, 1_000_000) / packet.time_base)
            packet.dts -= shift
            packet.pts = packet.dts if packet.pts is None else packet.pts - shift
            packet.stream = target
            yield packet

    def _encoded(self, target: AudioStream) -> Iterator[Packet[AudioStream]]:
        resampler = AudioResampler(format="fltp", layout=target.layout, rate=target.rate)
        for frame in self._input.decode(self._stream):
            for resampled in resampler.resample(self._shifted(frame)):
                yield from target.encode(resampled)
        for resampled in resampler.resample(None):
            yield from target.encode(resampled)
        yield from target.encode(None)

    def _shifted(self, frame: AudioFrame) -> AudioFrame:
        if frame.pts is not None and frame.time_base is not None:
            frame.pts -= round(Fraction(self._start_us, 1_000_000) / frame.time_base)
        return frame


class LiveSoundTrack:
    """What a source that goes on sounds like, from the first written frame on, as AAC."""

    def __init__(self, tap: SoundTap, output: OutputContainer) -> None:
        """Adds the stream to the output, which must not have been started."""
        self._tap = tap
        self._output = output
        self._stream = output.add_stream("aac", rate=SOUND_HZ)
        self._stream.layout = "stereo"
        self._place = 0
        self._buffer = np.zeros((2, 0), np.float32)
        self._at = 0
        """Where the buffer starts, in samples from the first frame on."""

    def write_until(self, end_ns: int, origin_ns: int) -> None:
        """Writes the sound that was heard so far and starts before end_ns, nanoseconds from the first frame on.

        origin_ns: of the first frame, on the source's clock.
        """
        pieces, place = self._tap.since(self._place)
        for number, piece in enumerate(pieces):
            if piece.start_ns - origin_ns >= end_ns:
                place -= len(pieces) - number
                break
            self._append(piece.samples, round((piece.start_ns - origin_ns) * SOUND_HZ / 1e9))
        self._place = place
        while self._buffer.shape[1] >= _AAC_SAMPLES:
            self._encode(self._buffer[:, :_AAC_SAMPLES])
            self._buffer = self._buffer[:, _AAC_SAMPLES:]
            self._at += _AAC_SAMPLES

    def finish(self) -> None:
        """Writes what is left."""
        if self._buffer.shape[1]:
            self._encode(self._buffer)
        self._output.mux(self._stream.encode(None))

    def _append(self, samples: NDArray[np.float32], start: int) -> None:
        """Takes samples that belong to that place; what overlaps is left out, and what is missing is silent."""
        end = self._at + self._buffer.shape[1]
        if abs(start - end) <= _JITTER:
            start = end
        if start < end:
            samples, start = samples[:, end - start :], end
        if start > end + SOUND_HZ:
            if self._buffer.shape[1]:
                self._encode(self._buffer)
            self._buffer, self._at = np.zeros((2, 0), np.float32), start
        elif start > end:
            samples = np.pad(samples, ((0, 0), (start - end, 0)))
        self._buffer = np.concatenate((self._buffer, samples), axis=1)

    def _encode(self, samples: NDArray[np.float32]) -> None:
        whole = np.zeros((2, _AAC_SAMPLES), np.float32)
        whole[:, : samples.shape[1]] = samples
        frame = AudioFrame.from_ndarray(whole, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, self._at, Fraction(1, SOUND_HZ)
        self._output.mux(self._stream.encode(frame))


def _time_ns(packet: Packet[AudioStream]) -> int:
    assert packet.dts is not None
    return round(packet.dts * packet.time_base * 1_000_000_000)
