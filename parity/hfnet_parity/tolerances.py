"""Which limits the report's numbers have: by profile, from `tolerances.toml`, and from a file of the user's."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from hfnet_edge.errors import InputError
from hfnet_edge.record.recording import PREFIXES, Recording
from hfnet_edge.shell.reading import MAX_SETTINGS, parse_toml, read_text
from hfnet_parity.measures import MEASURES

BUILT_IN = Path(__file__).parent / "tolerances.toml"
MAX_LIMIT = 1e300  # of anything that is measured; keeps NaN, infinity and endless integers out
HLOC = "hloc"  # the processor of its results, and their profile
INTEGER = ("int8",)  # precisions whose arithmetic is the same bits on every processor


def profile_of(reference: Recording, run: Recording) -> str:
    """Which tolerances apply.

    Returns:
        "hloc" for hloc's results; "packed" for another map; for the same model and map files on the same kind of
        runtime "identical", or "rounded" where a model computes in float; else "quantized".
    """
    a, b = reference.about, run.about
    if a.get("processor") == HLOC:
        return HLOC
    if a.get("map_hash") != b.get("map_hash"):
        return "packed"
    if any(a.get(key) != b.get(key) for key in (*(f"{of}model_hash" for of in PREFIXES), "processor")):
        return "quantized"
    precisions = [b[f"{of}precision"] for of in PREFIXES if f"{of}precision" in b]
    return "identical" if precisions and all(p in INTEGER for p in precisions) else "rounded"


def read_tolerances(profile: str, path: Path | None = None) -> dict[str, float]:
    """Limits by key of a measure: the built-in ones of a profile, replaced by those of a file.

    Args:
        path: tables by stage, for all profiles, or as in the built-in file by profile and stage.

    Raises:
        InputError: the file is missing, not TOML, or names what is not measured.
    """
    built_in = tomllib.loads(BUILT_IN.read_text())
    limits = _limits(built_in[profile], BUILT_IN)
    if path is None:
        return limits
    try:
        own = parse_toml(read_text(path, MAX_SETTINGS))
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) else str(e)
        raise InputError(f"cannot read the tolerances {path}: {reason}", f"copy {BUILT_IN} and change it") from e
    own_profiles = {name: own.pop(name) for name in built_in if isinstance(own.get(name), dict)}
    found = {name: _limits(tables, path) for name, tables in own_profiles.items()}  # all are checked
    return limits | _limits(own, path) | found.get(profile, {})


def _limits(tables: Mapping, path: Path) -> dict[str, float]:
    known = {measure.key for measure in MEASURES}
    found = {}
    for stage, limits in tables.items():
        for name, limit in limits.items() if isinstance(limits, dict) else [("", limits)]:
            key = f"{stage}.{name}".rstrip(".")
            number = isinstance(limit, int | float) and not isinstance(limit, bool) and abs(limit) <= MAX_LIMIT
            if key not in known or not number:
                raise InputError(
                    f"{path}: {key} = {limit!r} is not a tolerance", f"known are {', '.join(sorted(known))}"
                )
            found[key] = float(limit)
    return found
