"""The sound of a source file on its way into an output: copied packet by packet, or encoded anew as AAC."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from app.video import open_container

_AAC_RATES_HZ = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)

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


def _time_ns(packet: Packet[AudioStream]) -> int:
    assert packet.dts is not None
    return round(packet.dts * packet.time_base * 1_000_000_000)
