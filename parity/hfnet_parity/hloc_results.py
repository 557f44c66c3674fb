"""What hloc left of its run on a GPU, as a recording: features, global descriptors and poses of the queries.

hloc keeps no network outputs, no ranking of whole images and no matches in a form that others share, so those stages
stay empty; the poses, which everything comes to, are compared.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.hloc import open_features, read_features
from hfnet_edge.localizer import Status
from hfnet_edge.record.recording import QueryRecord, Recording
from hfnet_edge.shell.lists import read_poses

LOCAL, GLOBAL = ("features.h5", "feats-*.h5"), ("global-feats.h5", "global-feats-*.h5")


def read_hloc_results(folder: Path, queries: Sequence[tuple[str, Camera]]) -> Recording:
    """Reads features.h5, global-feats.h5 (or hloc's longer names) and the list of poses of a folder.

    Raises:
        InputError: a file is missing or damaged, there are several of a kind, or no query has a pose.
    """
    if not os.path.isdir(folder):
        raise InputError(f"there is no folder {folder}", "give hloc's outputs with --from-hloc")
    names = [name for name, _ in queries]
    local, global_ = _one(folder, LOCAL), _one(folder, GLOBAL)
    poses = _poses(folder, names)
    records = []
    with open_features(local, names) as features, open_features(global_, names) as globals_:
        for name, camera in queries:
            records.append(
                QueryRecord(
                    name,
                    camera,
                    features=read_features(features, globals_, name, camera),
                    status=(Status.LOCALIZED if name in poses else Status.REJECTED).value,
                    pose=poses.get(name),
                )
            )
    return Recording({"processor": "hloc", "features": local.name, "precision": "none"}, {}, tuple(records))


def result_files(folder: Path) -> list[Path]:
    """What of a folder may be read: features and lists."""
    return [path for pattern in ("*.h5", "*.txt") for path in folder.glob(pattern)]


def _one(folder: Path, patterns: Sequence[str]) -> Path:
    """The one file of a folder that matches the first pattern that any does. Raises InputError."""
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"{folder} has {len(found)} files {pattern}: {', '.join(p.name for p in found)}", "keep one of them"
            )
    raise InputError(f"{folder} has no {' or '.join(patterns)}", "give the folder that hloc wrote its results to")


def _poses(folder: Path, names: Sequence[str]) -> dict[str, Pose]:
    """Poses by query, of the one .txt that holds any; hloc writes the last part of a query's name."""
    found: dict[Path, dict[str, Pose]] = {}
    full, short = set(names), Counter(Path(name).name for name in names)
    by_short = {Path(name).name: name for name in names}
    wrong: list[InputError] = []
    for path in sorted(folder.glob("*.txt")):
        try:
            poses = read_poses(path)
        except InputError as e:  # pairs, queries with intrinsics, ...; or a list of poses that is wrong
            wrong.append(e)
            continue
        unclear = [name for name in poses if name not in full and short[name] > 1]
        if unclear:
            raise InputError(
                f"{path} has a pose of {unclear[0]}, the last part of {short[unclear[0]]} queries' names",
                "write the queries' whole names into it",
            )
        of_queries = {name if name in full else by_short.get(name, ""): pose for name, pose in poses.items()}
        of_queries.pop("", None)
        if of_queries:
            found[path] = of_queries
    if len(found) != 1:
        which = ", ".join(p.name for p in found) or f"none ({'; '.join(e.problem for e in wrong)})"
        raise InputError(
            f"{folder} should have one .txt with poses of the queries, it has {len(found)}: {which}",
            "keep the list `name qw qx qy qz tx ty tz` that hloc.localize_sfm wrote",
        )
    return next(iter(found.values()))
