"""Small files: written whole or not at all, and named by people."""

import os
import re
from pathlib import Path

from engine.errors import UsageError

_FORBIDDEN = re.compile(r'[\x00-\x1f/\\:*?"<>|]')
_LONGEST = 60


def named_file(folder: Path, name: str, suffix: str, what: str) -> Path:
    """The file that a person calls `name`; UsageError, which says what it is, for a name that no file can have."""
    if not name or name != name.strip() or name.startswith(".") or len(name) > _LONGEST or _FORBIDDEN.search(name):
        raise UsageError(
            f'{name!r} cannot be {what}: expected 1 to {_LONGEST} characters without / \\ : * ? " < > |, '
            f"not starting with a dot"
        )
    return folder / f"{name}{suffix}"


def names_in(folder: Path, suffix: str) -> list[str]:
    """What the folder's files of that suffix are called, in alphabetical order; the files are not read."""
    found = (path.stem for path in folder.glob(f"*{suffix}") if not path.name.startswith("."))
    return sorted(found, key=str.casefold)


def write_whole(path: Path, content: bytes) -> None:
    """Writes the file under a temporary name beside it, then renames it; an OSError leaves what was there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        if temporary.exists():
            temporary.unlink()
        raise
