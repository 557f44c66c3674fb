"""Files of a folder, or under a URL of object storage: what several processes or machines write and read.

    Files("place_sfm")          Files("s3://bucket/place_sfm")

A file is there whole or not at all. URLs are whatever fsspec knows; a machine needs the package of their kind, such as
s3fs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from hfnet_edge.errors import InputError, OutputError
from hfnet_edge.shell.writing import CHECK, atomic_write

PIECE = 1 << 20  # bytes that are fetched at once


class Files:
    """Files by name, with `/` between folders.

    Args:
        where: a folder, which is made if it is not there, or a URL with `://`.

    Raises:
        InputError: the URL's kind is not known here. OutputError: the folder cannot be made.
    """

    def __init__(self, where: Path | str):
        self.where = str(where)
        self._remote = None
        if "://" not in self.where:
            self.folder: Path | None = Path(where)
            _make(self.folder)
            return
        self.folder = None
        try:
            from fsspec.core import url_to_fs

            self._remote, self._root = url_to_fs(self.where)
        except (ImportError, ValueError) as e:
            raise InputError(
                f"cannot use {self.where}: {e}", "install `hfnet-edge[cluster]` and fsspec's package of that kind"
            ) from e

    def __contains__(self, name: str) -> bool:
        if self._remote is None:
            return self.path(name).is_file()
        return bool(self._remote.exists(f"{self._root}/{name}"))

    def path(self, name: str) -> Path:
        """Where a file of a folder is."""
        assert self.folder is not None, "files under a URL have no path"
        return self.folder / name

    def names(self, folder: str) -> list[str]:
        """The files of a folder that is in this one, in order."""
        if self._remote is None:
            return sorted(f"{folder}/{path.name}" for path in self.path(folder).glob("*") if not _hidden(path.name))
        with suppress(FileNotFoundError):
            self._remote.invalidate_cache()
            found = self._remote.ls(f"{self._root}/{folder}", detail=False)
            return sorted(f"{folder}/{name.rsplit('/', 1)[-1]}" for name in found)
        return []

    @contextmanager
    def read(self, name: str) -> Iterator[BinaryIO]:
        """The file, open. Raises OSError: it is not there, or the storage is not."""
        if self._remote is None:
            with self.path(name).open("rb") as file:
                yield file
        else:
            with self._remote.open(f"{self._root}/{name}", "rb", block_size=PIECE) as file:
                yield file

    @contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        """A new file, which takes its name at the end. Raises OutputError: it cannot be written."""
        if self._remote is None:
            path = self.path(name)
            _make(path.parent)
            with atomic_write(path) as file:
                yield file
            return
        with TemporaryFile() as file:
            yield file
            file.flush()
            file.seek(0)
            try:
                self._remote.makedirs(f"{self._root}/{name}".rsplit("/", 1)[0], exist_ok=True)
                self._remote.pipe_file(f"{self._root}/{name}", file.read())
            except OSError as e:
                raise OutputError(f"cannot write {self.where}/{name}: {e}", CHECK) from e

    def remove(self, name: str) -> None:
        """The file, if it is there."""
        with suppress(OSError):
            self.path(name).unlink() if self._remote is None else self._remote.rm_file(f"{self._root}/{name}")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(f"cannot write {folder}: {e.strerror or e}", CHECK) from e


def _hidden(name: str) -> bool:
    """Temporary files of writers are."""
    return name.startswith(".")
