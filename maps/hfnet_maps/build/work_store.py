"""What a build from photos has computed, kept in HDF5 beside its output, so that a killed build goes on where it was.

    parts/*.h5, a few photos or pairs each ─> features.h5, global-feats.h5, matches.h5 in hloc's layout

A part is written whole or not at all, and carries the key of each of its results: a hash of all that the result is made
of. Results are always read back from the files, so a build that was killed and one that was not use the same bits.
Processes write parts of their own; nothing is locked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pycolmap

from hfnet_edge.errors import OutputError
from hfnet_edge.features import Features
from hfnet_edge.shell.writing import CHECK, atomic_write

VERSION = "1"  # of what is computed: another one computes everything again
PARTS = "parts"
FEATURES, GLOBAL, MATCHES = "features.h5", "global-feats.h5", "matches.h5"
SCALE = np.float32(127)  # of int8 descriptors, which hloc has at unit length

Found = tuple[Features, np.ndarray | None]  # with hypercolumns
Pair = tuple[np.ndarray, pycolmap.TwoViewGeometry | None]


def key_of(*made_of: object) -> str:
    """A hash of what a result is made of."""
    return hashlib.sha256("\n".join([VERSION, *map(str, made_of)]).encode()).hexdigest()


class WorkStore:
    """A folder of results by key. Damaged files are as good as none.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            (folder / PARTS).mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise OutputError(f"cannot write {folder}: {e.strerror or e}", CHECK) from e
        self._where: dict[str, tuple[Path, str]] = {}  # file and group by key
        self.look()

    def look(self) -> None:
        """Learns what is there, what other processes have written since as well."""
        whole = _keys(self.folder / GLOBAL)
        self._where = {
            key: (self.folder / FEATURES, group)
            for key, group in _keys(self.folder / FEATURES).items()
            if whole.get(key) == group
        }
        for path in (self.folder / MATCHES, *sorted((self.folder / PARTS).glob("*.h5"))):
            self._where |= {key: (path, group) for key, group in _keys(path).items()}

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def write_features(self, results: Mapping[str, tuple[str, Found]]) -> None:
        """Keeps features by key, each with the name of its photo."""
        with self._part(results) as file:
            for key, (name, found) in results.items():
                group = file.create_group(name)
                group.attrs["key"] = key
                _put_features(group, group, found)

    def features(self, key: str) -> Found:
        """What `write_features` kept, or `gathered`."""
        path, group = self._where[key]
        with h5py.File(path) as file:
            g = file[group]
            if path.name == FEATURES:
                with h5py.File(self.folder / GLOBAL) as other:
                    return _get_features(g, other[group])
            return _get_features(g, g)

    def write_pairs(self, results: Mapping[str, tuple[str, Pair, int]]) -> None:
        """Keeps matches and geometry by key, each with the pair's group and the first photo's number of keypoints."""
        with self._part(results) as file:
            for key, (name, pair, count) in results.items():
                group = file.create_group(name)
                group.attrs["key"] = key
                _put_pair(group, pair, count)

    def pairs(self, keys: Sequence[str]) -> list[Pair]:
        """What `write_pairs` kept, or `gathered`."""
        files: dict[Path, h5py.File] = {}
        try:
            pairs = []
            for key in keys:
                path, group = self._where[key]
                if path not in files:
                    files[path] = h5py.File(path)
                pairs.append(_get_pair(files[path][group]))
            return pairs
        finally:
            for file in files.values():
                file.close()

    def gather(self, target: str, keys: Iterable[str]) -> None:
        """Makes hloc's file of these results, `FEATURES` with `GLOBAL` or `MATCHES`, and drops the parts that they are
        from. What a kill leaves is whole: a result is found as long as any file has all of it."""
        wanted = {key: self._where[key] for key in keys}
        files = sorted({path for path, _ in wanted.values()})
        if files == [self.folder / target] and len(wanted) == len(_keys(self.folder / target)):
            return
        for name in (GLOBAL, FEATURES) if target == FEATURES else (MATCHES,):
            with atomic_write(self.folder / name) as raw, h5py.File(raw, "w") as file:
                for path in files:
                    from_ = self.folder / GLOBAL if name == GLOBAL and path.name == FEATURES else path
                    with h5py.File(from_) as source:
                        for key, (at, group) in wanted.items():
                            if at == path:
                                copied = file.create_group(group)
                                copied.attrs.update(source[group].attrs)
                                for dataset in source[group]:
                                    if isinstance(source[group][dataset], h5py.Dataset) and _belongs(dataset, name):
                                        source.copy(f"{group}/{dataset}", copied)
                                copied.attrs["key"] = key
        for path in files:
            if path.parent.name == PARTS:
                path.unlink()
        self.look()

    def _part(self, results: Mapping[str, object]) -> _Part:
        return _Part(self.folder / PARTS / f"{key_of(*results)[:24]}.h5")


class _Part:
    """A file that is there whole or not at all."""

    def __init__(self, path: Path):
        self._write = atomic_write(path)

    def __enter__(self) -> h5py.File:
        self._file = h5py.File(self._write.__enter__(), "w")
        return self._file

    def __exit__(self, *why: object) -> None:
        self._file.close()
        self._write.__exit__(*why)  # type: ignore[arg-type]


def _keys(path: Path) -> dict[str, str]:
    """The groups of a file by key; none where it is missing or damaged."""
    found: dict[str, str] = {}

    def visit(name: str, one: object) -> None:
        if isinstance(one, h5py.Group) and "key" in one.attrs:
            found[str(one.attrs["key"])] = name

    try:
        if path.is_file():
            with h5py.File(path) as file:
                file.visititems(visit)
    except (OSError, KeyError, ValueError, RuntimeError):
        return {}
    return found


def _belongs(dataset: str, file: str) -> bool:
    """Whether a file of hloc's has a dataset."""
    return file == MATCHES or (dataset == "global_descriptor") == (file == GLOBAL)


def _put_features(group: h5py.Group, global_: h5py.Group, found: Found) -> None:
    f, hypercolumns = found
    group["keypoints"] = f.keypoints - 0.5  # hloc counts from the centre of the first pixel
    group["scores"] = f.scores
    group["descriptors"] = f.descriptors.T / SCALE
    group.attrs["pixel"] = f.pixel
    global_["global_descriptor"] = f.global_descriptor / SCALE
    if hypercolumns is not None:
        group["hypercolumns"] = hypercolumns


def _get_features(group: h5py.Group, global_: h5py.Group) -> Found:
    hypercolumns = group["hypercolumns"][()] if "hypercolumns" in group else None
    return Features(
        group["keypoints"][()].reshape(-1, 2) + 0.5,
        group["scores"][()],
        np.ascontiguousarray(np.rint(group["descriptors"][()] * SCALE).astype(np.int8).T),
        np.rint(global_["global_descriptor"][()] * SCALE).astype(np.int8),
        float(group.attrs["pixel"]),
    ), hypercolumns


def _put_pair(group: h5py.Group, pair: Pair, count: int) -> None:
    rows, geometry = pair
    matches = np.full(count, -1, np.int32)
    matches[rows[:, 0]] = rows[:, 1]
    group["matches0"] = matches
    group["matching_scores0"] = (matches >= 0).astype(np.float16)
    if geometry is not None:
        group["inliers"] = np.asarray(geometry.inlier_matches, np.uint32)
        group.attrs["config"] = int(geometry.config)
        for name in "EFH":
            matrix = getattr(geometry, name)
            if matrix is not None:
                group.attrs[name] = np.asarray(matrix)


def _get_pair(group: h5py.Group) -> Pair:
    matches = group["matches0"][()].astype(np.int64)
    first = np.flatnonzero(matches >= 0)
    rows = np.stack([first, matches[first]], axis=1)
    if "inliers" not in group:
        return rows, None
    geometry = pycolmap.TwoViewGeometry(inlier_matches=group["inliers"][()])
    geometry.config = int(group.attrs["config"])
    for name in "EFH":
        if name in group.attrs:
            setattr(geometry, name, group.attrs[name])
    return rows, geometry
