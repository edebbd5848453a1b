"""Arrays that lie somewhere else, as CuPy's do: they never turn into NumPy's by themselves, and never mix with them."""

from dataclasses import replace

import numpy as np

from tests.engine.kernels.host_kernels import HostKernels


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
        self.content[place] = value.content

    def copy(self):
        return RemoteArray(self.content.copy())

    def __float__(self):
        return float(self.content)

    def __array__(self, dtype=None, copy=None):
        raise TypeError("implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        assert method == "__call__"
        return RemoteArray(ufunc(*map(_only_remote_or_scalar, inputs), **options))

    def __array_function__(self, function, types, arguments, options):
        assert function in (np.clip, np.concatenate, np.pad, np.zeros, np.zeros_like), function
        return RemoteArray(function(*map(_unwrapped, arguments), **options))

    def sum(self):
        return RemoteArray(self.content.sum())

    def mean(self, axis):
        return RemoteArray(self.content.mean(axis=axis))

    def reshape(self, *shape):
        return RemoteArray(self.content.reshape(*shape))

    def astype(self, dtype):
        return RemoteArray(self.content.astype(dtype))


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

    def empty(self, shape, dtype):
        return RemoteArray(super().empty(shape, dtype))

    def put(self, array):
        assert isinstance(array, np.ndarray)
        return RemoteArray(array.copy())

    def upload(self, destination, source):
        super().upload(destination.content, source)

    def download(self, destination, source):
        super().upload(destination, source.content)

    def launch(self, source, name, outputs, *arguments):
        assert not any(isinstance(argument, np.ndarray) for argument in arguments), "an array of NumPy for a kernel"
        plain = (argument.content if isinstance(argument, RemoteArray) else argument for argument in arguments)
        super().launch(source, name, outputs, *plain)


class RemoteNetwork:
    """A network that takes remote arrays only, and gives such."""

    def __init__(self, network):
        self._network, self.spec = network, network.spec

    def __call__(self, **arrays):
        for name, array in arrays.items():
            assert isinstance(array, RemoteArray), f"{name} is an array of NumPy"
        answer = self._network(**{name: array.content for name, array in arrays.items()})
        return {name: RemoteArray(array) for name, array in answer.items()}


def remote(networks):
    """The networks as they are on a card."""
    names = ("generator", "encoder_anchor", "encoder", "recurrent", "parser")
    return replace(networks, **{name: RemoteNetwork(getattr(networks, name)) for name in names})
