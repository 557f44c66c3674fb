"""The files of one command: no output is an input or another output, and none lies where it should not."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from hfnet_edge.errors import OutputError
from hfnet_edge.shell.writing import check_writable, part_of, resolved, shortened

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}


class CommandFiles:
    """What one command reads and writes: no output is an input, whatever links lead to it, and no two are one file.

    Args:
        inputs: files, as `reads` takes them.
    """

    def __init__(self, *inputs: Path | str | None):
        self._taken: dict[object, str] = {}  # identities to how the file is called in a message
        self.reads(*inputs)

    def reads(self, *paths: Path | str | None) -> None:
        """Adds inputs; None is none, and one that is missing is its reader's to refuse."""
        for path in paths:
            if path is not None:
                self._take(path, f"the input {path}")

    def reads_pictures(self, folder: Path | str | None) -> None:
        """Adds every picture below a folder."""
        if folder is not None:
            for at, _, names in os.walk(folder):
                self.reads(*(Path(at, name) for name in names if Path(name).suffix.lower() in PICTURES))

    def writes(self, path: Path | str, streamed: bool = False, picture: bool = False) -> None:
        """Adds an output; ``streamed`` by `streamed_write`.

        Raises:
            OutputError: it cannot be written, is taken, or is no picture and would replace one, of which a folder of
                photos has more than those that a list names.
        """
        check_writable(path)
        names = (path, part_of(path)) if streamed else (path,)
        for name in names:
            self._check(name)
        if not picture and Path(path).suffix.lower() in PICTURES and os.path.exists(path):
            raise OutputError(f"cannot write {path}: it is a picture that is there already", "choose another name")
        for name in names:
            self._take(name, f"the output {name}")

    def writes_below(self, folder: Path, path: Path) -> None:
        """Adds an output that links must not lead out of a folder, as `writes`. Folders between need not be there."""
        if resolved(folder) not in resolved(path).parents:
            raise OutputError(f"cannot write {path}: a link leads out of {folder}", "name a new folder")
        self._check(path)
        self._take(path, f"the output {path}")

    def _check(self, path: Path | str) -> None:
        for identity in _identities(path):
            if identity in self._taken:
                raise OutputError(
                    f"cannot write {path}: another option names the same file ({self._taken[identity]})",
                    "choose another name",
                )

    def _take(self, path: Path | str, what: str) -> None:
        for identity in _identities(path):
            self._taken.setdefault(identity, what)


def _identities(path: Path | str) -> Iterator[object]:
    """By which a file is recognised: where links lead, and, if it is there, its number on the disk."""
    yield os.path.realpath(path)
    with suppress(OSError, ValueError):
        status = os.stat(path)
        if not stat.S_ISDIR(status.st_mode):
            yield status.st_dev, status.st_ino


def names_below(names: Iterable[str], endings: tuple[str, ...], ending: str) -> dict[str, PurePosixPath]:
    """A relative path for each name, without roots and steps upwards, whatever the names say. No two are the same, also
    on file systems that do not tell a from A; a name that needs no change has none.

    Args:
        endings: that a name may have; others get ``ending`` in addition.
    """
    paths = {}
    for name in names:
        parts = [part for part in re.split(r"[/\\\0]", name) if part not in ("", ".", "..")]
        path = PurePosixPath(*[shortened(part, 200).replace(":", "_") for part in parts] or ["_"])
        paths[name] = path if path.suffix.lower() in endings else path.with_name(f"{path.name}{ending}")
    used: dict[str, int] = {}  # to the number of the next of the same name
    for name in sorted(paths, key=lambda name: str(paths[name]) != name):  # the others make way
        path = paths[name]
        while (key := str(paths[name]).casefold()) in used:
            used[str(path).casefold()] += 1
            paths[name] = path.with_stem(f"{path.stem}-{used[str(path).casefold()]}")
        used[key] = 1
    return paths
