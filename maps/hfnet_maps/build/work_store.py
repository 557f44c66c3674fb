"""What a build from photos has computed, kept in HDF5 beside its output, so that a killed build goes on where it was.

    parts/*.h5, a few photos or pairs each ─> features.h5, global-feats.h5, matches.h5 in hloc's layout

A part is written whole or not at all, and carries the key of each of its results: a hash of all that the result is made
of. Results are always read back from the files, so a build that was killed and one that was not use the same bits.
Processes and machines write parts of their own; nothing is locked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np
import pycolmap

from hfnet_edge.errors import InputError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Pose
from hfnet_maps.build.work_files import Files

VERSION = "2"  # of what is computed: another one computes everything again
PARTS = "parts"
FEATURES, GLOBAL, MATCHES = "features.h5", "global-feats.h5", "matches.h5"
OPEN = 64  # files at once
SCALE = np.float32(127)  # of int8 descriptors, which hloc has at unit length

At = tuple[str, str]
"""Where a result is: a file of the store, and a group in it."""

Found = tuple[Features, np.ndarray | None]  # with hypercolumns
Pair = tuple[np.ndarray, pycolmap.TwoViewGeometry | None]


def key_of(*made_of: object) -> str:
    """A hash of what a result is made of."""
    return hashlib.sha256("\n".join([VERSION, *map(str, made_of)]).encode()).hexdigest()


def told_pose(pose: Pose) -> str:
    """A pose as a part of a key, to the last bit."""
    return f"{pose.quaternion.tolist()} {pose.translation.tolist()}"


class WorkStore:
    """Results by key in a folder, or under a URL that `Files` knows. Damaged files are as good as none.

    Raises:
        OutputError: the folder cannot be made. InputError: the URL's kind is not known.
    """

    def __init__(self, where: Path | str):
        self.files = Files(where)
        self._where: dict[str, At] = {}
        self.look()

    def look(self) -> None:
        """Learns what is there, what other processes have written since as well."""
        parts = self.files.names(PARTS)
        read = {name for name, _ in self._where.values()}
        gone = read - {*parts, FEATURES, MATCHES}
        self._where = {
            key: at for key, at in self._where.items() if at[0] not in gone and at[0] not in (FEATURES, MATCHES)
        }
        whole = _keys(self.files, GLOBAL)
        for key, group in _keys(self.files, FEATURES).items():
            if whole.get(key) == group:
                self._where[key] = FEATURES, group
        for name in (MATCHES, *(part for part in parts if part not in read)):
            self._where |= {key: (name, group) for key, group in _keys(self.files, name).items()}

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def at(self, key: str) -> At:
        """Where a result is, for whoever shall read it. Raises InputError: somebody has removed it."""
        if key not in self._where:
            raise InputError(
                f"{self.files.where} has changed while it was used", "run one build at a time into one output"
            )
        return self._where[key]

    def gather(self, target: str, keys: Iterable[str]) -> None:
        """Makes hloc's file of these results, `FEATURES` with `GLOBAL` or `MATCHES`, and drops the parts that they are
        from. What a kill leaves is whole: a result is found as long as any file has all of it. Not under a URL."""
        if self.files.folder is None:
            return
        wanted = {key: self._where[key] for key in keys}
        names = sorted({name for name, _ in wanted.values()})
        if names == [target] and len(wanted) == len(_keys(self.files, target)):
            return
        for made in (GLOBAL, FEATURES) if target == FEATURES else (MATCHES,):
            with self.files.write(made) as raw, h5py.File(raw, "w") as file:
                for name in names:
                    with read_h5(self.files, GLOBAL if made == GLOBAL and name == FEATURES else name) as source:
                        for key, (at, group) in wanted.items():
                            if at == name:
                                copied = file.create_group(group)
                                copied.attrs.update(source[group].attrs)
                                for dataset in source[group]:
                                    if isinstance(source[group][dataset], h5py.Dataset) and _belongs(dataset, made):
                                        source.copy(f"{group}/{dataset}", copied)
                                copied.attrs["key"] = key
        for name in names:
            if name.startswith(PARTS):
                self.files.remove(name)
        self._where = {key: at for key, at in self._where.items() if at[0] not in names}
        self.look()


def write_features(files: Files, results: Mapping[str, tuple[str, Found]]) -> None:
    """Keeps features by key, each with the name of its photo."""
    with _part(files, {key: name for key, (name, _) in results.items()}) as file:
        for name, found in results.values():
            group = file.create_group(name)
            _put_features(group, group, found)


def write_pairs(files: Files, results: Mapping[str, tuple[str, Pair, int]]) -> None:
    """Keeps matches and geometry by key, each with the pair's group and the first photo's number of keypoints."""
    with _part(files, {key: name for key, (name, _, _) in results.items()}) as file:
        for name, pair, count in results.values():
            _put_pair(file.create_group(name), pair, count)


@contextmanager
def _part(files: Files, groups: Mapping[str, str]) -> Iterator[h5py.File]:
    """A new part, with the groups of its results by key."""
    with files.write(f"{PARTS}/{key_of(*groups)[:24]}.h5") as raw, h5py.File(raw, "w") as file:
        yield file
        file.attrs["keys"] = list(groups)
        file.attrs["groups"] = list(groups.values())


def read_features(files: Files, at: At) -> Found:
    """What a store keeps of a photo."""
    name, group = at
    with read_h5(files, name) as file:
        if name != FEATURES:
            return _get_features(file[group], file[group])
        with read_h5(files, GLOBAL) as other:
            return _get_features(file[group], other[group])


def read_looks(files: Files, places: Sequence[At]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each photo: keypoints (M,) int64, `Features.pixel` (M,), and the global descriptor (M, G) int8."""
    looks, pixels, counts = [], [], []
    with _opened(files) as open_:
        for name, group in places:
            pixels.append(float(open_(name)[group].attrs["pixel"]))
            counts.append(len(open_(name)[group]["keypoints"]))
            whole = open_(GLOBAL if name == FEATURES else name)[group]["global_descriptor"][()]
            looks.append(np.rint(whole * SCALE).astype(np.int8))
    return np.array(counts, np.int64), np.array(pixels), np.stack(looks)


def read_pairs(files: Files, places: Sequence[At]) -> list[Pair]:
    """What a store keeps of pairs."""
    with _opened(files) as open_:
        return [_get_pair(open_(name)[group]) for name, group in places]


def read_counts(files: Files, places: Sequence[At]) -> np.ndarray:
    """(P,) int64: matches of each pair that fit one geometry."""
    with _opened(files) as open_:
        groups = (open_(name)[group] for name, group in places)
        return np.array([len(g["inliers"]) if "inliers" in g else 0 for g in groups], np.int64)


@contextmanager
def read_h5(files: Files, name: str) -> Iterator[h5py.File]:
    """A file of the store. Raises OSError: it is not there, or damaged."""
    if files.folder is not None:
        with h5py.File(files.path(name)) as file:
            yield file
        return
    with files.read(name) as raw, h5py.File(raw) as file:
        yield file


@contextmanager
def _opened(files: Files) -> Iterator[Callable[[str], h5py.File]]:
    """What opens files of the store, `OPEN` at once at most."""
    with ExitStack() as stack:
        opened: dict[str, h5py.File] = {}

        def open_(name: str) -> h5py.File:
            if name not in opened:
                if len(opened) >= OPEN:
                    stack.close()
                    opened.clear()
                opened[name] = stack.enter_context(read_h5(files, name))
            return opened[name]

        yield open_


def _keys(files: Files, name: str) -> dict[str, str]:
    """The groups of a file by key; none where it is missing or damaged."""
    found: dict[str, str] = {}

    def visit(name: str, one: object) -> None:
        if isinstance(one, h5py.Group) and "key" in one.attrs:
            found[str(one.attrs["key"])] = name

    try:
        if name in files:
            with read_h5(files, name) as file:
                if name.startswith(PARTS):
                    return dict(zip(map(str, file.attrs["keys"]), map(str, file.attrs["groups"]), strict=True))
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
    group.create_dataset("matches0", data=matches, compression="gzip", shuffle=True)  # nearly all are -1
    group.create_dataset("matching_scores0", data=(matches >= 0).astype(np.float16), compression="gzip")
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
