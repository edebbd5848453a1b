"""Everything that can go wrong on purpose.

    RigidError                  the root: `except RigidError` catches every failure with a message for a person
    ├── UsageError              what was asked for does not exist or is out of range            (exit code 2)
    │   ├── UnknownAttribute    a slider that the bundle has no direction for
    │   └── ValueOutOfRange     an attribute value outside [-1, 1], nan included
    ├── AssetError              a third-party file
    │   ├── AssetMissing        not in the cache; the message names the command that fetches it
    │   └── AssetCorrupt        its sha256 is not the pinned one
    ├── BundleError             a bundle that cannot be trusted or does not fit this program
    ├── RuntimeUnavailable      the requested runtime, device or precision cannot be used here; lists every reason
    ├── CardFailed              the graphics card ran out of memory or failed at work; the next frame may do better
    ├── NotFinite               the networks gave numbers that are not finite, from a fresh start too
    ├── SourceError             a camera, file or URL that cannot be opened or read to its end
    ├── SinkError               an output that cannot be written
    ├── CheckpointError         a checkpoint that cannot be read, written or does not fit the network
    ├── ExportError             networks that cannot be exported, or whose export computes something else
    └── TrainingDiverged        a loss or gradient that is not finite; names the last good checkpoint

A message says what was found, what was expected and what to do, in one line.
"""


class RigidError(Exception):
    """Root of the tree: a failure with a one-line message for a person."""


class UsageError(RigidError):
    """What was asked for does not exist or is out of range."""


class UnknownAttribute(UsageError):
    """A slider that the bundle has no direction for."""


class ValueOutOfRange(UsageError):
    """An attribute value outside [-1, 1]; nan included."""


class AssetError(RigidError):
    """A third-party file cannot be used."""


class AssetMissing(AssetError):
    """A third-party file is not in the cache."""


class AssetCorrupt(AssetError):
    """A third-party file's sha256 is not the pinned one."""


class BundleError(RigidError):
    """A bundle cannot be trusted or does not fit this program."""


class RuntimeUnavailable(RigidError):
    """The requested runtime, device or precision cannot be used here."""


class CardFailed(RigidError):
    """The graphics card ran out of memory or failed at work."""


class NotFinite(RigidError):
    """The networks gave numbers that are not finite, from a fresh start too."""


class SourceError(RigidError):
    """A camera, file or URL cannot be opened or read to its end."""


class SinkError(RigidError):
    """An output cannot be written."""


class CheckpointError(RigidError):
    """A checkpoint cannot be read, cannot be written or does not fit the network."""


class ExportError(RigidError):
    """Networks cannot be exported as asked, or the export computes something else than they do."""


class TrainingDiverged(RigidError):
    """A loss or a gradient is not finite; the message names the last good checkpoint."""
