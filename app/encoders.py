"""The H.264 encoder of a recording: the graphics card's where one works, which leaves the processor to the engine."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import cast

import av
from av.video.codeccontext import VideoCodecContext

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoder:
    """An encoder by FFmpeg's name, the pixel format it takes, and its options for a visually lossless picture."""

    name: str
    pixels: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)


X264 = Encoder("libx264", options={"crf": "18", "preset": "veryfast"})
"""Of a file: veryfast takes a third of the default preset's time at much the same size."""

LIVE_X264 = Encoder("libx264", options={"crf": "18", "preset": "ultrafast"})
"""Of a live source, where the processor is the engine's: ultrafast takes 9 ms for a frame of 1280x720, veryfast 24.
The file is four times as large (4 Mbit/s), its error the same."""

HARDWARE = (
    Encoder("h264_nvenc", options={"rc": "vbr", "cq": "20", "preset": "p4"}),
    Encoder("h264_qsv", "nv12", {"global_quality": "20"}),
    Encoder("h264_amf", "nv12", {"rc": "cqp", "qp_i": "20", "qp_p": "20"}),
    Encoder("h264_videotoolbox", options={"q": "65"}),
)


@cache
def live_encoder() -> Encoder:
    """The first encoder of a card that can be opened here, or x264; looked for once, and said aloud."""
    for encoder in HARDWARE:
        if encoder.name in av.codecs_available and _opens(encoder):
            log.info("recordings are encoded by %s", encoder.name)
            return encoder
    log.info("recordings are encoded by %s: no encoder of a graphics card can be used", LIVE_X264.name)
    return LIVE_X264


def _opens(encoder: Encoder) -> bool:
    try:
        codec = cast(VideoCodecContext, av.CodecContext.create(encoder.name, "w"))
        codec.width, codec.height, codec.pix_fmt = 640, 360, encoder.pixels
        codec.time_base, codec.framerate = Fraction(1, 30), Fraction(30)
        codec.options = dict(encoder.options)
        codec.open()
    except (av.error.FFmpegError, OSError, ValueError) as error:
        log.debug("%s cannot be used: %s", encoder.name, error)
        return False
    return True
