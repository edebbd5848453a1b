"""Small clips made for tests, whose frames carry their number in their picture."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import OutputContainer
from av.video.frame import VideoFrame

from engine.frames import ImageU8

BITS = 8
SOUND_HZ = 48000
TS_PACKET = 188
_BLACK, _WHITE = 40, 215


def numbered(number: int, width: int = 64, height: int = 48) -> ImageU8:
    """A BGR picture with the number as black and white columns, lowest bit on the left."""
    image = np.full((height, width, 3), _BLACK, np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            image[:, bit * width // BITS : (bit + 1) * width // BITS] = _WHITE
    return image


def number_of(image: ImageU8) -> int:
    """The number in a picture that `numbered` made, after whatever coding it went through."""
    width = image.shape[1]
    centres = [image[image.shape[0] // 2, (2 * bit + 1) * width // (2 * BITS)].mean() for bit in range(BITS)]
    return sum(1 << bit for bit, level in enumerate(centres) if level > 128)


def write_clip(
    path: Path,
    images: Sequence[ImageU8],
    *,
    rate: int = 25,
    times: Sequence[int] | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    sound: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes the pictures. times: of each, in ms; by default they follow each other at the rate. sound: its codec."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = 1  # the same bytes each time: where a cut falls is no matter of luck
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        track = container.add_stream(sound, rate=SOUND_HZ, layout="stereo") if sound else None
        for index, image in enumerate(images):
            frame = VideoFrame.from_ndarray(image, format="bgr24").reformat(format=pixels)
            frame.pts = index if times is None else times[index]
            frame.time_base = Fraction(1, rate) if times is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track:
            _write_tone(container, track, seconds=len(images) / rate)
    return path


def clip(path: Path, count: int = 12, **how: object) -> Path:
    """Writes a clip of numbered 64x48 pictures."""
    return write_clip(path, [numbered(index) for index in range(count)], **how)


def rotate_by_metadata(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Gives the first track of an MP4 file the display matrix (a, b, c, d), as phones do."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44  # ISO/IEC 14496-12, 8.3.2, version 0: the matrix follows 44 bytes after the name
    a, b, c, d = (value << 16 for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def cut(path: Path, keep: float) -> Path:
    """Cuts the file off after the given part of it."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


def damage(path: Path, sound: float) -> Path:
    """Damages every packet of a transport stream after the given part of it.

    Of one damaged frame alone FFmpeg's threads do not always tell.
    """
    content = bytearray(path.read_bytes())
    for start in range(int(len(content) * sound) // TS_PACKET * TS_PACKET, len(content), TS_PACKET):
        content[start + TS_PACKET // 2] ^= 0xFF
    path.write_bytes(content)
    return path


def numbers_in(path: Path) -> list[int]:
    """The numbers of all frames of a file."""
    with av.open(str(path)) as container:
        return [number_of(frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]


def times_in(path: Path) -> list[float]:
    """The presentation times of all frames of a file, in seconds."""
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def sound_packets(path: Path) -> list[bytes]:
    """The coded sound of a file, packet by packet."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def _write_tone(container: OutputContainer, track: av.AudioStream, seconds: float) -> None:
    phase = np.arange(int(SOUND_HZ * seconds)) * 440 * 2 * np.pi / SOUND_HZ
    tone = (np.sin(phase) * 8000).astype(np.int16)
    frame = AudioFrame.from_ndarray(np.repeat(tone, 2)[None], format="s16", layout="stereo")
    frame.sample_rate, frame.pts = SOUND_HZ, 0
    resampler = av.AudioResampler(format=track.format.name, layout="stereo", rate=SOUND_HZ, frame_size=track.frame_size)
    for part in (*resampler.resample(frame), *resampler.resample(None)):
        container.mux(track.encode(part))
    container.mux(track.encode(None))
