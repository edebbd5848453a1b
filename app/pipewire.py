"""A camera of PipeWire's: a `Video/Source` node that browsers, OBS and GStreamer list, with no kernel module.

It speaks to libpipewire-0.3 through ctypes: the library is on every system that runs PipeWire, and nothing else is
needed. GStreamer's pipewiresink would be less code, but the one of Debian 12 crashes once somebody connects to it.
Structures, numbers and the way parameters are laid out in memory ("pods") are those of the headers `pipewire/stream.h`
and `spa/`, which are stable within 0.3 and 1.x.
"""

import ctypes
import errno
import os
import struct
import time
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int32, c_int64, c_uint32, c_uint64, c_void_p

import cv2
import numpy as np

from engine.errors import SinkError
from engine.frames import ImageU8

_LIBRARY = "libpipewire-0.3.so.0"
_CONNECT_S = 5.0
_STREAMING = 3
"""States: -1 error, 0 unconnected, 1 connecting, 2 paused, 3 streaming."""
_OUTPUT, _ANY, _FLAGS = 1, 0xFFFFFFFF, 1 << 2 | 1 << 3
"""Direction, target, and flags: PipeWire maps the buffers, and this stream drives whoever listens to it."""
_PARAM_ENUM_FORMAT, _PARAM_FORMAT, _PARAM_BUFFERS = 3, 4, 5
_OBJECT_FORMAT, _OBJECT_BUFFERS = 0x40003, 0x40004
_YUY2, _BYTES_PER_PX = 4, 2
_BT601, _LIMITED_RANGE = 4, 2


class _Chunk(Structure):
    _fields_ = (("offset", c_uint32), ("size", c_uint32), ("stride", c_int32), ("flags", c_int32))


class _Data(Structure):
    _fields_ = (
        ("type", c_uint32), ("flags", c_uint32), ("fd", c_int64), ("mapoffset", c_uint32), ("maxsize", c_uint32),
        ("data", c_void_p), ("chunk", POINTER(_Chunk)),
    )  # fmt: skip


class _SpaBuffer(Structure):
    _fields_ = (("n_metas", c_uint32), ("n_datas", c_uint32), ("metas", c_void_p), ("datas", POINTER(_Data)))


class _Buffer(Structure):
    _fields_ = (("buffer", POINTER(_SpaBuffer)), ("user_data", c_void_p), ("size", c_uint64))


_StateChanged = CFUNCTYPE(None, c_void_p, c_int, c_int, c_char_p)
_ParamChanged = CFUNCTYPE(None, c_void_p, c_uint32, c_void_p)
_Process = CFUNCTYPE(None, c_void_p)


class _Events(Structure):
    _fields_ = (
        ("version", c_uint32), ("destroy", c_void_p), ("state_changed", _StateChanged), ("control_info", c_void_p),
        ("io_changed", c_void_p), ("param_changed", _ParamChanged), ("add_buffer", c_void_p),
        ("remove_buffer", c_void_p), ("process", _Process), ("drained", c_void_p), ("command", c_void_p),
        ("trigger_done", c_void_p),
    )  # fmt: skip


class PipeWireCamera:
    """A camera of the given name, size (width, height) in px, width even, and nominal rate.

    `send` is called by one thread. PipeWire's own thread asks for pictures; under its lock it finds the newest.
    """

    def __init__(self, name: str, size: tuple[int, int], fps: int) -> None:
        """Connects to the user's PipeWire; raises SinkError when there is none."""
        self._size, self._problem, self._state = size, "", 0
        self._picture = bytes(size[0] * size[1] * _BYTES_PER_PX)
        self._pipewire = pipewire = _load()
        pipewire.pw_init(None, None)
        self._loop = pipewire.pw_thread_loop_new(b"rigid-live", None)
        said = (
            "media.class=Video/Source media.type=Video media.category=Capture media.role=Camera node.name=rigid-live "
            f'node.description="{name}" node.nick="{name}"'
        )
        # ctypes keeps callbacks only as long as Python does.
        self._events = _Events(
            version=2,
            state_changed=_StateChanged(self._on_state),
            param_changed=_ParamChanged(self._on_param),
            process=_Process(self._on_process),
        )
        self._stream = pipewire.pw_stream_new_simple(
            pipewire.pw_thread_loop_get_loop(self._loop),
            name.encode(),
            pipewire.pw_properties_new_string(said.encode()),
            ctypes.byref(self._events),
            None,
        )
        if not self._stream:
            pipewire.pw_thread_loop_destroy(self._loop)
            raise SinkError("PipeWire gives no stream")
        try:
            self._connect(fps)
        except SinkError:
            self.close()
            raise

    def send(self, image_u8: ImageU8) -> None:
        """Shows a BGR picture [H, W, 3] of the camera's size; raises SinkError once PipeWire is gone."""
        if self._problem:
            raise SinkError(f"PipeWire ended the camera: {self._problem}")
        if self._state != _STREAMING:
            return  # nobody looks
        picture = cv2.cvtColor(image_u8, cv2.COLOR_BGR2YUV_YUY2).tobytes()
        self._pipewire.pw_thread_loop_lock(self._loop)
        self._picture = picture
        if self._pipewire.pw_stream_is_driving(self._stream):
            self._fill_buffer()  # before the trigger: PipeWire would ask for it after, and show it one picture late
            self._pipewire.pw_stream_trigger_process(self._stream)
        self._pipewire.pw_thread_loop_unlock(self._loop)

    def close(self) -> None:
        """Takes the camera away."""
        self._pipewire.pw_thread_loop_stop(self._loop)
        self._pipewire.pw_stream_destroy(self._stream)
        self._pipewire.pw_thread_loop_destroy(self._loop)

    def _connect(self, fps: int) -> None:
        offered = _format_pod(self._size, fps)
        failed = self._pipewire.pw_stream_connect(self._stream, _OUTPUT, _ANY, _FLAGS, *_pod_list(offered))
        if failed == -errno.EHOSTDOWN:
            raise SinkError("PipeWire is not running for this user")
        if failed < 0:
            raise SinkError(f"PipeWire refuses the camera: {os.strerror(-failed)}")
        self._pipewire.pw_thread_loop_start(self._loop)
        give_up = time.monotonic() + _CONNECT_S
        while self._state < 2 and not self._problem:
            if time.monotonic() > give_up:
                raise SinkError(f"PipeWire did not answer in {_CONNECT_S:.0f} s")
            time.sleep(0.01)
        if self._problem:
            raise SinkError(f"PipeWire refuses the camera: {self._problem}")

    def _on_state(self, _data: object, before: int, state: int, error: bytes | None) -> None:
        self._state = state
        if state < 0 or (state == 0 and before > 0):
            self._problem = error.decode(errors="replace") if error else "the connection is lost"

    def _on_param(self, _data: object, param: int, pod: int | None) -> None:
        if param == _PARAM_FORMAT and pod:
            self._pipewire.pw_stream_update_params(self._stream, *_pod_list(_buffers_pod(self._size)))

    def _on_process(self, _data: object) -> None:
        if not self._pipewire.pw_stream_is_driving(self._stream):
            self._fill_buffer()

    def _fill_buffer(self) -> None:
        buffer = self._pipewire.pw_stream_dequeue_buffer(self._stream)
        if not buffer:
            return  # who listens is late: this picture is left out
        data = buffer.contents.buffer.contents.datas[0]
        if data.data and data.maxsize >= len(self._picture):
            ctypes.memmove(data.data, self._picture, len(self._picture))
            chunk = data.chunk.contents
            chunk.offset, chunk.size, chunk.stride = 0, len(self._picture), self._size[0] * _BYTES_PER_PX
        self._pipewire.pw_stream_queue_buffer(self._stream, buffer)


def _load() -> ctypes.CDLL:
    """The library with the types of what is called; SinkError when it is not there."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise SinkError(f"PipeWire's library {_LIBRARY} is not installed") from error
    pods = POINTER(c_void_p)
    signatures = {
        "pw_init": (None, c_void_p, c_void_p),
        "pw_thread_loop_new": (c_void_p, c_char_p, c_void_p),
        "pw_thread_loop_get_loop": (c_void_p, c_void_p),
        "pw_thread_loop_start": (c_int, c_void_p),
        "pw_thread_loop_stop": (None, c_void_p),
        "pw_thread_loop_destroy": (None, c_void_p),
        "pw_thread_loop_lock": (None, c_void_p),
        "pw_thread_loop_unlock": (None, c_void_p),
        "pw_properties_new_string": (c_void_p, c_char_p),
        "pw_stream_new_simple": (c_void_p, c_void_p, c_char_p, c_void_p, c_void_p, c_void_p),
        "pw_stream_connect": (c_int, c_void_p, c_int, c_uint32, c_int, pods, c_uint32),
        "pw_stream_update_params": (c_int, c_void_p, pods, c_uint32),
        "pw_stream_is_driving": (ctypes.c_bool, c_void_p),
        "pw_stream_trigger_process": (c_int, c_void_p),
        "pw_stream_dequeue_buffer": (POINTER(_Buffer), c_void_p),
        "pw_stream_queue_buffer": (c_int, c_void_p, POINTER(_Buffer)),
        "pw_stream_destroy": (None, c_void_p),
    }
    for name, (result, *arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _pod(kind: int, body: bytes) -> bytes:
    """A value: size and type of the body, and the body, filled up to a multiple of 8 bytes."""
    return struct.pack("<II", len(body), kind) + body + bytes(-len(body) % 8)


def _id(value: int) -> bytes:
    return _pod(3, struct.pack("<I", value))


def _int(value: int) -> bytes:
    return _pod(4, struct.pack("<i", value))


def _int_range(default: int, least: int, most: int) -> bytes:
    return _pod(19, struct.pack("<IIIIiii", 1, 0, 4, 4, default, least, most))


def _int_mask(mask: int) -> bytes:
    return _pod(19, struct.pack("<IIIIi", 4, 0, 4, 4, mask))


def _object(kind: int, param: int, values: dict[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<II", key, 0) + value for key, value in values.items())
    return _pod(15, struct.pack("<II", kind, param) + body)


def _format_pod(size: tuple[int, int], fps: int) -> bytes:
    """Raw YUY2 video, as most cameras give it, of one size and rate."""
    values = {
        1: _id(2),  # a video
        2: _id(1),  # that is raw
        0x20001: _id(_YUY2),
        0x20003: _pod(10, struct.pack("<II", *size)),
        0x20004: _pod(11, struct.pack("<II", fps, 1)),
        0x2000D: _id(_LIMITED_RANGE),
        0x2000E: _id(_BT601),
    }
    return _object(_OBJECT_FORMAT, _PARAM_ENUM_FORMAT, values)


def _buffers_pod(size: tuple[int, int]) -> bytes:
    """2 to 8 buffers of one block each, in memory that processes share."""
    stride = size[0] * _BYTES_PER_PX
    values = {
        1: _int_range(4, 2, 8),
        2: _int(1),
        3: _int(stride * size[1]),
        4: _int(stride),
        6: _int_mask(1 << 1 | 1 << 2),
    }
    return _object(_OBJECT_BUFFERS, _PARAM_BUFFERS, values)


def _pod_list(pod: bytes) -> tuple[object, int]:
    """A pod as an array of one, and the array's length."""
    memory = np.frombuffer(pod, np.uint8).copy()
    array = (c_void_p * 1)(memory.ctypes.data)
    array.memory = memory  # type: ignore[attr-defined] # lives as long as the array
    return array, 1
