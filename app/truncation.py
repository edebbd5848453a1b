"""Finds out, before any work, whether a file was cut off: containers say how long they are meant to be."""

from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path

from av.video.stream import VideoStream

_EBML_SEGMENT = b"\x18\x53\x80\x67"
_GIF_TRAILER = b"\x3b"
_MPEG_PACK = b"\0\0\1\xba"
_MPEG_END = 0xB9
_MPEG_TAIL = 1 << 20
"""Most writers make packs of 2 KiB, some of a few hundred."""


def missing_bytes(path: Path, stream: VideoStream) -> str | None:
    """What is missing at the end of the file, in words; None when nothing is known to be missing.

    MP4 and QuickTime are judged by the place of their last sample, Matroska and AVI by the size in their header,
    GIF by its end mark, MPEG program streams by the length of their last packet. Other formats, MPEG transport
    streams among them, do not say how long they are: what is broken in them shows while they are decoded.
    """
    size = path.stat().st_size
    end = _CLAIMED_END.get(stream.container.format.name, _no_claim)(path, stream)
    if end is None or end <= size:
        return None
    return f"it has {size} bytes of at least {end}"


def _last_sample(path: Path, stream: VideoStream) -> int | None:
    streams = stream.container.streams
    entries = chain.from_iterable(each.index_entries for each in (*streams.video, *streams.audio))
    return max((entry.pos + entry.size for entry in entries), default=None)


def _matroska_segment(path: Path, stream: VideoStream) -> int | None:
    head = _head(path)
    at = head.find(_EBML_SEGMENT)
    if at < 0 or at + 12 > len(head):
        return None
    # An EBML size: the place of the first set bit tells its length, the bits after it are the number (RFC 8794).
    start = at + len(_EBML_SEGMENT)
    length = 9 - head[start].bit_length()
    if length > 8:
        return None
    number = int.from_bytes(head[start : start + length]) & ((1 << 7 * length) - 1)
    unknown = number == (1 << 7 * length) - 1
    return None if unknown else start + length + number


def _riff(path: Path, stream: VideoStream) -> int | None:
    head = _head(path)
    claimed = int.from_bytes(head[4:8], "little")
    return claimed + 8 if head[:4] == b"RIFF" and claimed else None


def _gif(path: Path, stream: VideoStream) -> int | None:
    content = path.read_bytes()
    return None if content.rstrip(b"\0").endswith(_GIF_TRAILER) else len(content) + 1


def _mpeg_program(path: Path, stream: VideoStream) -> int | None:
    """The end of the last packet of the last pack (ISO/IEC 11172-1 and 13818-1)."""
    with path.open("rb") as opened:
        start = max(path.stat().st_size - _MPEG_TAIL, 0)
        opened.seek(start)
        tail = opened.read()
    at = tail.rfind(_MPEG_PACK)
    if at < 0 or at + 14 > len(tail):
        return None
    # A pack's header is 12 bytes long in MPEG-1; in MPEG-2 it is 14 and the stuffing that it counts itself.
    at += 14 + (tail[at + 13] & 7) if tail[at + 4] >> 6 == 1 else 12
    while at + 6 <= len(tail) and tail[at : at + 3] == b"\0\0\1" and tail[at + 3] > _MPEG_END:
        at += 6 + int.from_bytes(tail[at + 4 : at + 6])
    return start + at


def _no_claim(path: Path, stream: VideoStream) -> int | None:
    return None


def _head(path: Path) -> bytes:
    with path.open("rb") as opened:
        return opened.read(4096)


_CLAIMED_END: Mapping[str, Callable[[Path, VideoStream], int | None]] = {
    "mov,mp4,m4a,3gp,3g2,mj2": _last_sample,
    "matroska,webm": _matroska_segment,
    "avi": _riff,
    "gif": _gif,
    "mpeg": _mpeg_program,
}
