"""Video files and streams as sources, decoded by FFmpeg through PyAV: upright uint8 BGR frames with their times."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from app.sources import UNSPECIFIED, Closing, ColourTags, SourceInfo
from app.truncation import missing_bytes
from engine.errors import SourceError
from engine.frames import CameraFrame, ImageU8

if TYPE_CHECKING:
    from av.sidedata.sidedata import SideData

log = logging.getLogger(__name__)

_OPEN_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 10.0
_LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt")
_DEFAULT_FPS = 25.0
_LEAP_NS, _FOLLOW = 500_000_000, 0.05
"""A stream's clock that is further behind than the first has started anew; else it is followed by that share."""

# Code points of ISO/IEC 23091-2 -> the coefficient sets that swscale knows.
_SWS_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
_SWS_BT709, _SWS_BT601 = 1, 5

_TO_BGR = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""Without the two options swscale rounds down, and greys come out up to three levels darker."""


class VideoSource(Closing):
    """Every frame of a file or URL, in order of presentation.

    Frames are upright (the display matrix is applied, so a phone's portrait video is portrait), 8-bit BGR whatever
    the file's pixel format, and keep their presentation times, counted from the start of the file. A URL that
    never ends (rtsp, rtmp..., or one that states no duration) is live: its frames carry the time of arrival.
    """

    def __init__(self, location: str, *, keep_partial: bool = False) -> None:
        """Opens the source and decodes its first frame; raises SourceError when that cannot be done.

        keep_partial: read a truncated file as far as it goes; the error then comes from `read`.
        """
        self._location = location
        self._keep_partial = keep_partial
        self._reformatter = VideoReformatter()
        self._rotation: int | None = None
        first = self._open()
        self._first_pts = first.pts
        self._pending: CameraFrame | None = self._camera_frame(first)
        self._info = self._describe(first, self._pending.image)

    @property
    def info(self) -> SourceInfo:
        """What the container and the first frame say."""
        return self._info

    def read(self) -> CameraFrame | None:
        """The next frame, None after the last.

        Raises SourceError when the file turns out to be corrupt or truncated, or the connection breaks.
        """
        if self._pending is not None:
            frame, self._pending = self._pending, None
            return frame
        decoded = next(self._frames, None)
        if decoded is None:
            return None
        return self._camera_frame(decoded)

    def cancel(self) -> None:
        """Nothing to do: FFmpeg gives up waiting for data by itself."""

    def rewind(self) -> None:
        """Goes back to the first frame, whose index is 0; SourceError when the source cannot be read any more."""
        first = self._sought_first()
        if first is None:
            self.close()
            first = self._open()
        self._pending = self._camera_frame(first)

    def close(self) -> None:
        """Closes the file or connection; the decoder goes at once, and does not wait for the cycle collector."""
        self._frames: Iterator[VideoFrame] = iter(())  # it held this object, which held it
        self._container.close()

    def _open(self) -> VideoFrame:
        """Opens the source and decodes its first frame."""
        location = self._location
        self._container = open_container(location)
        try:
            self._stream = video_stream(self._container, location)
            self._damage = None if is_url(location) else missing_bytes(Path(location), self._stream)
            if self._damage and not self._keep_partial:
                raise SourceError(f"{location} is truncated: {self._damage}")
            self._live = is_url(location) and is_live(location, self._container)
            # Frame threads let FFmpeg decode ahead while the engine works, without a queue of our own. They cost
            # frames of delay, which a live source must not have.
            self._stream.thread_type = "SLICE" if self._live else "AUTO"
            self._start_ns = (self._container.start_time or 0) * 1000
            self._hearing = _Hearing(self._container) if self._live and self._container.streams.audio else None
            return self._decoded_first()
        except BaseException:
            self.close()
            raise

    def _sought_first(self) -> VideoFrame | None:
        """The first frame, found by going back with the decoder that is there; None where that leads elsewhere."""
        if not went_to_start(self._container):
            return None
        try:
            first = self._decoded_first()
        except SourceError:
            return None
        return first if first.pts == self._first_pts else None

    def _decoded_first(self) -> VideoFrame:
        self._last_ns: int | None = None
        self._count = 0
        self._frames = self._decode()
        first = next(self._frames, None)
        if first is None:
            raise SourceError(f"{self._location} holds no video frames")
        return first

    def _decode(self) -> Iterator[VideoFrame]:
        try:
            for packet in self._container.demux(self._stream, *self._hearing.streams if self._hearing else ()):
                if self._hearing and packet.stream is not self._stream:
                    self._hearing.take(cast("Packet[AudioStream]", packet))
                    continue
                seen = cast("Packet[VideoStream]", packet)
                yield from self._decode_live(seen) if self._live else self._decode_whole(seen)
        except av.error.FFmpegError as error:
            raise self._broken(reason(error)) from error
        if self._damage:
            raise self._broken(self._damage)

    def _decode_whole(self, packet: Packet[VideoStream]) -> Iterator[VideoFrame]:
        for frame in packet.decode():
            if frame.is_corrupt:
                raise self._broken("a frame is damaged")
            yield frame

    def _decode_live(self, packet: Packet[VideoStream]) -> Sequence[VideoFrame]:
        try:
            return packet.decode()
        except av.error.InvalidDataError as error:  # a stream goes on after a lost packet
            log.warning("%s: a packet could not be decoded: %s", self._location, reason(error))
            return ()

    def _broken(self, why: str) -> SourceError:
        return SourceError(f"{self._location} is truncated or corrupt after {self._count} frames: {why}")

    def _camera_frame(self, frame: VideoFrame) -> CameraFrame:
        if frame.rotation != self._rotation:
            # Not of every frame: one whose side data is looked at is kept until the cycle collector comes.
            self._rotation, self._matrix = frame.rotation, display_matrix(frame)
        image = upright(to_bgr(frame, self._reformatter), self._matrix)
        captured_ns = time.monotonic_ns() if self._live else self._presentation_ns(frame)
        if self._hearing and frame.pts is not None and frame.time_base is not None:
            self._hearing.seen(round(frame.pts * frame.time_base * 1_000_000_000), captured_ns)
        made = CameraFrame(self._count, captured_ns, image)
        self._last_ns = captured_ns
        self._count += 1
        return made

    def _presentation_ns(self, frame: VideoFrame) -> int:
        """Time from the start of the file; always later than the frame before, whatever the file says."""
        last_ns = self._last_ns
        if frame.pts is None or frame.time_base is None:
            rate = float(self._stream.average_rate or _DEFAULT_FPS)
            return 0 if last_ns is None else last_ns + round(1e9 / rate)
        said_ns = round((frame.pts * frame.time_base) * 1_000_000_000) - self._start_ns
        if last_ns is None:
            return max(said_ns, 0)
        tick_ns = -(-1_000_000_000 * frame.time_base.numerator // frame.time_base.denominator)
        return max(said_ns, last_ns + tick_ns)

    def _describe(self, first: VideoFrame, image: ImageU8) -> SourceInfo:
        stream = self._stream
        aspect = stream.sample_aspect_ratio or Fraction(1)
        turned = (image.shape[1], image.shape[0]) != (first.width, first.height)
        tags = ColourTags(first.colorspace or UNSPECIFIED, first.color_primaries, first.color_trc)
        return SourceInfo(
            name=self._location,
            width_px=image.shape[1],
            height_px=image.shape[0],
            fps=float(stream.average_rate or stream.guessed_rate or _DEFAULT_FPS),
            frames=stream.frames,
            live=self._live,
            time_base=stream.time_base or Fraction(1, 90_000),
            pixel_aspect=1 / aspect if turned else aspect,
            colour=tags,
            sound=self._location if self._container.streams.audio and not self._live else None,
            live_sound=self._hearing.tap if self._hearing else None,
        )


class _Hearing:
    """The sound that comes beside the pictures of a live source, put on the clock of their arrival."""

    def __init__(self, container: InputContainer) -> None:
        from app.sound_tap import Ear, SoundTap  # which loads this module

        self.streams = container.streams.audio[:1]
        self.tap = SoundTap()
        self._ear = Ear()
        self._offset_ns: float | None = None

    def seen(self, shown_ns: int, captured_ns: int) -> None:
        """Learns from a picture with that time in the stream how the stream's clock and the frames' go together.

        Pictures arrive unevenly, the first ones late: what came soonest counts, and others move it by little, so that
        the sound stays one piece.
        """
        now_ns = captured_ns - shown_ns
        late_ns = 0.0 if self._offset_ns is None else now_ns - self._offset_ns
        if self._offset_ns is None or late_ns < 0 or late_ns > _LEAP_NS:
            self._offset_ns = now_ns
        else:
            self._offset_ns += late_ns * _FOLLOW

    def take(self, packet: Packet[AudioStream]) -> None:
        """Decodes a packet of sound; what comes before the first picture belongs to none."""
        from app.sound_tap import Heard

        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            return
        for frame in frames:
            for start_ns, samples in self._ear.pieces(frame):
                if self._offset_ns is not None:
                    self.tap.put(Heard(round(start_ns + self._offset_ns), samples))


def open_container(location: str) -> InputContainer:
    """Opens a file or URL with FFmpeg; SourceError with the reason in one line."""
    options = {"rtsp_transport": "tcp"} if location.startswith("rtsp") else {}
    timeout = (_OPEN_TIMEOUT_S, _READ_TIMEOUT_S) if is_url(location) else None
    try:
        return av.open(location, mode="r", options=options, timeout=timeout)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"{location} cannot be opened as a video: {reason(error)}") from error


def went_to_start(container: InputContainer) -> bool:
    """Goes back to where decoding begins, and says whether the file allows it."""
    try:  # a second before the start: what a sound decoder needs to begin with lies there
        container.seek((container.start_time or 0) - av.time_base)
    except av.error.FFmpegError:
        return False
    return True


def video_stream(container: InputContainer, location: str) -> VideoStream:
    """The container's first moving-picture stream (a cover picture is none); SourceError when there is none."""
    for stream in container.streams.video:
        if not stream.disposition & stream.disposition.attached_pic:
            return stream
    raise SourceError(f"{location} holds no video")


def is_url(location: str) -> bool:
    """True for `scheme://...`."""
    return "://" in location


def is_live(location: str, container: InputContainer) -> bool:
    """True for a URL whose frames come whether they are wanted or not."""
    return location.partition("://")[0].lower() in _LIVE_SCHEMES or not container.duration


def reason(error: Exception) -> str:
    """FFmpeg's own words for an error, without the number and the path that PyAV adds."""
    return str(getattr(error, "strerror", None) or error)


def sws_matrix(tag: int, height_px: int) -> int:
    """The colour matrix as swscale numbers it.

    tag: code point of ISO/IEC 23091-2; where it is not said, what players assume: BT.709 from 720 lines up,
    BT.601 below.
    """
    return _SWS_MATRIX.get(tag, _SWS_BT709 if height_px >= 720 else _SWS_BT601)


def to_bgr(frame: VideoFrame, reformatter: VideoReformatter) -> ImageU8:
    """The frame as uint8 BGR [H, W, 3], full range; any pixel format, grey and 10-bit included."""
    converted = reformatter.reformat(
        frame,
        format="bgr24",
        src_colorspace=sws_matrix(frame.colorspace, frame.height),
        dst_color_range=ColorRange.JPEG,
        interpolation=_TO_BGR,
    )
    return np.asarray(converted.to_ndarray(), dtype=np.uint8)


def display_matrix(frame: VideoFrame) -> tuple[float, float, float, float] | None:
    """(a, b, c, d) of the frame's display matrix, x' = a x + c y, y' = b x + d y; None when it has none."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(cast("SideData", data)), dtype="<i4")[:5] / 65536.0
    return float(a), float(b), float(c), float(d)


def upright(image: ImageU8, matrix: tuple[float, float, float, float] | None) -> ImageU8:
    """The image turned and mirrored as its display matrix says, in whole quarter turns."""
    if matrix is None:
        return image
    a, b, c, d = matrix
    if abs(b) > abs(a):
        image = image.transpose(1, 0, 2)
        a, d = c, b
    image = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(image)


def describe(location: str) -> list[tuple[str, str]]:
    """What the container says about its streams, as (topic, text); raises SourceError when it is no video."""
    with open_container(location) as container:
        stream = video_stream(container, location)
        codec, rate = stream.codec_context, float(stream.average_rate or 0)
        said = [
            ("container", f"{container.format.name}, {(container.duration or 0) / 1e6:.2f} s"),
            ("video", f"{codec.name} {codec.pix_fmt} {codec.width}x{codec.height}, {rate:g} frames/s"),
        ]
        first = next(container.decode(stream), None)
        if first is not None and display_matrix(first) is not None:
            said.append(("rotation", f"{first.rotation} degrees, by its display matrix"))
        for sound in container.streams.audio:
            said.append(("sound", f"{sound.codec.canonical_name}, {sound.rate} Hz, {sound.layout.name}"))
        return said
