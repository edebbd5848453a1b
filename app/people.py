"""Likenesses that were kept: on this computer, under names that their owner gave, until they are deleted.

A file holds what the encoder's codes lack of a face and which networks that belongs to: 6,144 numbers, no picture. It
is made only when a person asks for it by a name, and nothing sends it anywhere. Faces are not recognised by it: whose
likeness is used is chosen by that name.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray

from app.files import named_file, names_in, write_whole
from engine.errors import SinkError, UsageError

_SUFFIX = ".npz"


def default_folder() -> Path:
    """Where likenesses are kept: in the user's data folder."""
    return Path(platformdirs.user_data_dir("rigid-live", appauthor=False)) / "people"


class People:
    """The likenesses in one folder; a person's name is the file's."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or default_folder()

    def names(self) -> list[str]:
        """The names there are, in alphabetical order; the files are not read."""
        return names_in(self._folder, _SUFFIX)

    def load(self, name: str, bundle: str) -> NDArray[np.float32]:
        """The likeness [L, D]; UsageError when there is none of that name, or it belongs to other networks."""
        path = self.path(name)
        try:
            # Read in one piece: NumPy would take any broken file for a pickle and say so at length.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
                likeness, networks = np.asarray(kept["likeness"], np.float32), str(kept["networks"])
        except FileNotFoundError as error:
            known = ", ".join(self.names()) or "nobody"
            raise UsageError(f"no likeness is kept of {name!r}; there is {known}") from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UsageError(f"the likeness {path} cannot be read; delete it and improve it again") from error
        if networks != networks_of(bundle):
            raise UsageError(f"the likeness of {name!r} belongs to other networks than this bundle's; improve it again")
        return likeness

    def save(self, name: str, likeness: NDArray[np.float32], bundle: str) -> None:
        """Keeps it, in place of one of that name.

        Raises UsageError for a name that no file can have and SinkError when the file cannot be written.
        """
        path, content = self.path(name), io.BytesIO()
        np.savez(content, likeness=likeness, networks=np.array(networks_of(bundle)))
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(path, content.getvalue())
        except OSError as error:
            raise SinkError(f"the likeness {path} cannot be written: {error.strerror}") from error

    def delete(self, name: str) -> None:
        """Forgets a person; SinkError when it cannot be done."""
        try:
            self.path(name).unlink()
        except OSError as error:
            raise SinkError(f"the likeness of {name!r} cannot be deleted: {error.strerror}") from error

    def path(self, name: str) -> Path:
        """The person's file; UsageError for a name that no file can have."""
        return named_file(self._folder, name, _SUFFIX, "a person's name")


def networks_of(bundle: str) -> str:
    """Which networks a likeness of this bundle belongs to: its generator, its encoders and what it is sought by.

    Raises BundleError.
    """
    from app.bundles import prepare_bundle  # loads much: not before the window is there
    from engine.bundle import read_manifest
    from engine.bundle_build import bundle_path
    from engine.likeness import FILE

    manifest = read_manifest(bundle_path(prepare_bundle(bundle)))
    graphs = [manifest.graphs[name] for name in ("encoder_anchor", "refiner") if name in manifest.graphs]
    encoders = " ".join(manifest.files[graph.file] for graph in graphs)
    return f"{manifest.generator_id} {encoders} {manifest.files.get(FILE, '')}"
