"""Arrays that lie somewhere else, as CuPy's do: they never turn into NumPy's by themselves, and never mix with them.

What is done to them can be captured as a card captures it: then nothing is computed, and what was kept does the same to
the same memory each time it is replayed.
"""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from tests.engine.kernels.host_kernels import HostKernels


class Device:
    """What is being captured, and how often that was done. taped: the work so far, None when nothing is captured."""

    taped = None
    apart = False
    captures = 0
    replays = 0

    def do(self, work):
        """Does it, or keeps it."""
        if self.taped is None:
            work()
        else:
            self.taped.append(work)

    def capture(self, work):
        """As `Runtime.capture`."""
        assert self.apart, "a graph in memory that others may be given"
        self.captures += 1
        self.taped = taped = []
        try:
            with np.errstate(all="ignore"):
                work()
        finally:
            self.taped = None

        def replay():
            self.replays += 1
            for again in taped:
                again()

        return replay


DEVICE = Device()


def made(compute):
    """A new remote array; while something is captured, its content comes with each replay."""
    content = np.asarray(compute())
    if DEVICE.taped is None:
        return RemoteArray(content)
    place = np.full_like(content, 77)
    DEVICE.taped.append(lambda: np.copyto(place, compute()))
    return RemoteArray(place)


_FUNCTIONS = (
    np.arange,
    np.broadcast_to,
    np.clip,
    np.concatenate,
    np.ones_like,
    np.pad,
    np.stack,
    np.zeros,
    np.zeros_like,
)


class RemoteArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of another library, with as much of NumPy's interface as CuPy has and a session uses."""

    def __init__(self, content):
        self.content = content

    shape = property(lambda self: self.content.shape)
    dtype = property(lambda self: self.content.dtype)
    ndim = property(lambda self: self.content.ndim)
    flags = property(lambda self: self.content.flags)
    strides = property(lambda self: self.content.strides)
    nbytes = property(lambda self: self.content.nbytes)

    def __len__(self):
        return len(self.content)

    def __getitem__(self, place):
        return RemoteArray(self.content[place])

    def __setitem__(self, place, value):
        assert isinstance(value, RemoteArray), "an array of NumPy into a remote one"
        DEVICE.do(lambda: self.content.__setitem__(place, value.content))

    def copy(self):
        return made(self.content.copy)

    def view(self, dtype):
        return RemoteArray(self.content.view(dtype))

    def __float__(self):
        assert DEVICE.taped is None, "the host does not know what is only captured"
        return float(self.content)

    def __array__(self, dtype=None, copy=None):
        raise TypeError("implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        assert method == "__call__"
        plain = list(map(_only_remote_or_scalar, inputs))
        return made(lambda: ufunc(*plain, **options))

    def __array_function__(self, function, types, arguments, options):
        assert function in _FUNCTIONS, function
        plain = list(map(_unwrapped, arguments))
        return made(lambda: function(*plain, **options))

    def sum(self, axis=None):
        return made(lambda: self.content.sum(axis=axis))

    def mean(self, axis):
        return made(lambda: self.content.mean(axis=axis))

    def reshape(self, *shape):
        if self.content.flags.c_contiguous:
            return RemoteArray(self.content.reshape(*shape))
        return made(lambda: self.content.reshape(*shape))

    def astype(self, dtype):
        return made(lambda: self.content.astype(dtype))


def _only_remote_or_scalar(value):
    assert isinstance(value, RemoteArray) or np.ndim(value) == 0, "an array of NumPy beside a remote one"
    return value.content if isinstance(value, RemoteArray) else value


def _unwrapped(value):
    if isinstance(value, list | tuple) and any(isinstance(one, RemoteArray | np.ndarray) for one in value):
        assert all(isinstance(one, RemoteArray) for one in value), "arrays of NumPy beside remote ones"
        return [one.content for one in value]
    return value.content if isinstance(value, RemoteArray) else value


class RemoteKernels(HostKernels):
    """The host's kernels on remote arrays."""

    @contextmanager
    def set_apart(self):
        DEVICE.apart = True
        yield
        DEVICE.apart = False

    def empty(self, shape, dtype):
        return RemoteArray(super().empty(shape, dtype))

    def put(self, array):
        assert isinstance(array, np.ndarray)
        assert DEVICE.taped is None, "what the host holds now would come again with every replay"
        return RemoteArray(array.copy())

    def upload(self, destination, source):
        assert DEVICE.taped is None, "what the host holds now would come again with every replay"
        super().upload(destination.content, source)

    def download(self, destination, source):
        assert DEVICE.taped is None, "a graph does not know the caller's array"
        super().upload(destination, source.content)

    def wait(self):
        assert DEVICE.taped is None, "there is nothing to wait for"

    def launch(self, source, name, outputs, *arguments):
        assert not any(isinstance(argument, np.ndarray) for argument in arguments), "an array of NumPy for a kernel"
        plain = [argument.content if isinstance(argument, RemoteArray) else argument for argument in arguments]
        DEVICE.do(lambda: self.run(source, name, outputs, *plain))

    def run(self, source, name, outputs, *arguments):
        """What a launch does, when its turn comes."""
        super().launch(source, name, outputs, *arguments)


class RemoteNetwork:
    """A network that takes remote arrays only, and gives such."""

    def __init__(self, network):
        self._network, self.spec = network, network.spec

    def __call__(self, **arrays):
        for name, array in arrays.items():
            assert isinstance(array, RemoteArray), f"{name} is an array of NumPy"
        plain = {name: array.content for name, array in arrays.items()}
        places = {name: np.array(array) for name, array in self._network(**plain).items()}
        if DEVICE.taped is not None:
            DEVICE.taped.append(
                lambda: [np.copyto(places[name], array) for name, array in self._network(**plain).items()]
            )
        return {name: RemoteArray(array) for name, array in places.items()}


def remote(networks):
    """The networks as they are on a card."""
    names = ("generator", "encoder_anchor", "encoder", "recurrent", "parser", "refiner")
    return replace(networks, **{name: RemoteNetwork(part) for name in names if (part := getattr(networks, name))})
