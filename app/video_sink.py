"""Writes edited frames into a video file: H.264, every frame at its source's own time, with the source's sound."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from app.encoders import X264, Encoder, live_encoder
from app.sinks import check_writable, exact_rate, pixel_size
from app.sound import LiveSoundTrack, SoundTrack
from app.sources import UNSPECIFIED, SourceInfo
from app.video import reason, sws_matrix
from engine.errors import SinkError
from engine.frames import EditedFrame, ImageU8

log = logging.getLogger(__name__)

_MP4 = (".mp4", ".m4v", ".mov")
_RECOVERABLE = {"movflags": "delay_moov+default_base_moof", "frag_duration": "1000000", "flush_packets": "1"}
"""MP4 in fragments of a second, each of which can be played without what follows.

FFmpeg's `hybrid_fragmented` would make a usual file of it at the end, but crashes when no frame came (FFmpeg 8.0).
"""


class FileSink:
    """A video file that exists under its name only once it is whole.

    Frames are written to a temporary name in the same folder. Of a live source it is a name that is seen, and what is
    there can be played up to the last second, whatever ends the program. The picture has the size of the source's first
    frame (twice as wide when comparing); a frame of another size is scaled to fit it, on black. Frames keep their
    times, so a variable frame rate stays one, and colours are encoded by the matrix they were decoded by.
    """

    standing = False

    def __init__(self, path: Path, info: SourceInfo, *, compare: bool) -> None:
        """Opens the temporary file; raises SinkError when it cannot be written."""
        check_writable(path)
        self._path = path
        hidden = "" if info.live else "."
        self._temporary = path.with_name(f"{hidden}{path.stem}.{os.getpid()}.part{path.suffix}")
        self._encoder = live_encoder() if info.live else X264
        self._info = info
        self._compare = compare
        self._reformatter = VideoReformatter()
        self._origin_ns: int | None = None if info.live and info.sound is None else 0
        self._last_pts = -1
        self._end_ns = 0
        self._sound: SoundTrack | None = None
        self._live_sound: LiveSoundTrack | None = None
        self._open = True
        self._broke_off = False
        with self._reported():
            fragments = info.live and path.suffix.lower() in _MP4
            options = _RECOVERABLE if fragments else {}
            self._container = av.open(str(self._temporary), mode="w", options=options)
            self._stream = _add_picture(self._container, info, pixel_size(info, compare=compare), self._encoder)
            self._sound = SoundTrack(info.sound, self._container) if info.sound else None
            self._live_sound = LiveSoundTrack(info.live_sound, self._container) if info.live_sound else None
            self._container.start_encoding()

    def write(self, edited: EditedFrame, original: ImageU8) -> None:
        """Encodes one frame, and the sound up to its time. Raises SinkError when the file cannot take more."""
        size = (self._info.width_px, self._info.height_px)
        image = fitted(edited.image, size)
        if self._compare:
            image = np.hstack((fitted(original, size), image))
        if self._origin_ns is None:
            self._origin_ns = edited.captured_ns
        shown_ns = edited.captured_ns - self._origin_ns
        frame = self._encodable(image)
        pts = round(Fraction(shown_ns, 1_000_000_000) / self._info.time_base)
        self._last_pts = frame.pts = max(pts, self._last_pts + 1)
        frame.time_base = self._info.time_base
        self._end_ns = shown_ns + round(1_000_000_000 / exact_rate(self._info.fps))
        with self._reported():
            self._container.mux(self._stream.encode(frame))
            if self._sound:
                self._sound.write_until(shown_ns)
            if self._live_sound:
                self._live_sound.write_until(shown_ns, self._origin_ns)

    def finish(self, *, whole: bool) -> None:
        """Completes the file and gives it its name; without any frame there is no file.

        whole: all sound is kept, not only what belongs to the frames.
        """
        if self._last_pts < 0:
            log.warning("no frame was written, so there is no %s", self._path)
            self.discard()
            return
        with self._reported():
            self._container.mux(self._stream.encode(None))
            if self._sound:
                self._sound.write_until(None if whole else self._end_ns)
            if self._live_sound:
                self._live_sound.finish()
            self._close()
            os.replace(self._temporary, self._path)

    def discard(self) -> None:
        """Removes the temporary file, unless it is a recording that broke off; does nothing after `finish`."""
        if self._open:
            try:
                self._close()
            except (av.error.FFmpegError, OSError) as error:  # nothing more can be done for the file
                log.debug("closing %s: %s", self._temporary, error)
        if not self._broke_off:
            self._temporary.unlink(missing_ok=True)

    def _encodable(self, image: ImageU8) -> VideoFrame:
        """The picture in 4:2:0, limited range, with an odd edge repeated."""
        width, height = pixel_size(self._info, compare=self._compare)
        if image.shape[:2] != (height, width):
            image = np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)), mode="edge")
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        return self._reformatter.reformat(
            frame,
            format=self._encoder.pixels,
            dst_colorspace=sws_matrix(self._info.colour.matrix, self._info.height_px),
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND,  # without it greys get a tint
        )

    def _close(self) -> None:
        self._open = False
        if self._sound:
            self._sound.close()
        self._container.close()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Turns what FFmpeg and the system say into a SinkError; what was recorded of a live source is kept then."""
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            self._broke_off = self._info.live and self._last_pts >= 0
            if not self._broke_off:
                self._temporary.unlink(missing_ok=True)
            full = "; free some space" if error.errno == errno.ENOSPC else ""
            kept = f"; what was recorded is in {self._temporary}" if self._broke_off else ""
            raise SinkError(f"output {self._path} cannot be written: {reason(error)}{full}{kept}") from error


def fitted(image: ImageU8, size: tuple[int, int]) -> ImageU8:
    """The picture scaled to fit into size (width, height) px, centred on black; itself when it has that size."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    scale = min(size[0] / width, size[1] / height)
    inner = max(round(width * scale), 1), max(round(height * scale), 1)
    canvas = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(image, inner, interpolation=interpolation)
    return canvas


def _add_picture(container: OutputContainer, info: SourceInfo, size: tuple[int, int], encoder: Encoder) -> VideoStream:
    rate = exact_rate(info.fps)
    stream = cast(VideoStream, container.add_stream(encoder.name, rate=rate, options=dict(encoder.options)))
    stream.width, stream.height = size
    stream.pix_fmt = encoder.pixels
    codec = stream.codec_context
    codec.time_base = info.time_base
    codec.sample_aspect_ratio = info.pixel_aspect
    # Tags are written only where the source had them: an untagged file stays one, and players treat both alike.
    if info.colour.matrix != UNSPECIFIED:
        codec.colorspace = info.colour.matrix
        codec.color_range = ColorRange.MPEG
    codec.color_primaries = info.colour.primaries
    codec.color_trc = info.colour.transfer
    return stream
