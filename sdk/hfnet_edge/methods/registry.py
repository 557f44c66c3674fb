"""The methods by name, and one preflight for whoever opens one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from hfnet_edge.errors import InputError
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.auto import Auto
from hfnet_edge.methods.hierarchical import Hierarchical
from hfnet_edge.methods.method import LocalizationConfig, Method
from hfnet_edge.methods.parallel import Parallel, Retrieval, Trees, TreesAbsolute
from hfnet_edge.methods.retrieval_pose import RetrievalPose
from hfnet_edge.methods.scene_coordinates import SceneCoordinates
from hfnet_edge.methods.sparse_to_dense import SparseToDense
from hfnet_edge.networks.by_role import Networks, check_networks

METHODS: Mapping[str, type[Method]] = {
    "hierarchical": Hierarchical,
    "retrieval": Retrieval,
    "trees": Trees,
    "trees-absolute": TreesAbsolute,
    "parallel": Parallel,
    "sparse-to-dense": SparseToDense,
    "scene-coordinates": SceneCoordinates,
    "retrieval-pose": RetrievalPose,
    "auto": Auto,
}


def method_class(name: str | type[Method]) -> type[Method]:
    """A method by its name, or by the ``module:Class`` where Python finds it. Raises InputError."""
    if not isinstance(name, str):
        return name
    if name in METHODS:
        return METHODS[name]
    module, colon, attribute = name.partition(":")
    known = f"there are {', '.join(METHODS)}, and whatever Python can import as module:Class"
    if not colon:
        raise InputError(f"the method {name!r} does not exist", known)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as e:
        raise InputError(f"the method {name} cannot be imported: {e}", known) from e
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise InputError(f"{name} is not a hfnet_edge.methods.method.Method", known)
    return found


def method_name(method: str | type[Method]) -> str:
    """What `method_class` finds it by."""
    if isinstance(method, str):
        return method
    named = (name for name, known in METHODS.items() if known is method)
    return next(named, f"{method.__module__}:{method.__qualname__}")


def method_file(name: str) -> Path | None:
    """The module, or the folder of the package, that a method has to be sent with to another machine; None: it comes
    with this package. Raises InputError."""
    top = method_class(name).__module__.partition(".")[0]
    if top == __name__.partition(".")[0]:
        return None
    file = Path(str(importlib.import_module(top).__file__))
    return file.parent if file.stem == "__init__" else file


def open_method(map_: LocalizationMap, networks: Networks | None, config: LocalizationConfig) -> Method:
    """The preflight: a method that is ready for queries in a map.

    Args:
        networks: None: features come from elsewhere, so none are needed.

    Raises:
        InputError: there is no such method.
        MismatchError: networks, map and method do not belong together, or something is missing: says what.
        MapFormatError: the map is damaged where the method opens it.
    """
    kind = method_class(config.method)
    if networks is not None:
        check_networks(networks, map_, kind.roles(map_), kind.further_roles(map_))
    return kind(map_, Networks() if networks is None else networks, config)
