"""A training run's configuration file (TOML). `BUNDLED_RECIPE` and its like made the bundled weights."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from hfnet_edge.errors import InputError
from hfnet_edge.shell.reading import MAX_SETTINGS, parse_toml, read_text
from hfnet_export.networks.crbnet import CRBNetConfig
from hfnet_export.networks.densernet import DenserNetConfig
from hfnet_export.networks.hfnet import HFNetConfig
from hfnet_export.training.crbnet_training import CRBNetTraining
from hfnet_export.training.densernet_stage import DenserNetTraining
from hfnet_export.training.descriptor_stage import DescriptorConfig
from hfnet_export.training.distill import DistillConfig, GlobalConfig, LocalConfig
from hfnet_export.training.hypercolumn_stage import HypercolumnConfig
from hfnet_export.training.losses import LOCAL_TERMS

BUNDLED_RECIPE = Path(__file__).parents[1] / "networks" / "weights" / "hfnet.toml"
BUNDLED_CRBNET_RECIPE = Path(__file__).parents[1] / "networks" / "weights" / "crbnet.toml"
BUNDLED_DENSERNET_RECIPE = Path(__file__).parents[1] / "networks" / "weights" / "densernet.toml"
MIN_PAIRS = 16  # of a batch of patches: twice the neighbours that the second-order similarity looks at
MOST = 2**63  # of a number; TOML has no bound
TABLES = {
    "network": HFNetConfig,
    "local": LocalConfig,
    "global": GlobalConfig,
    "descriptors": DescriptorConfig,
    "hypercolumns": HypercolumnConfig,
}


def read_training_recipe(path: Path) -> DistillConfig:
    """Reads what `BUNDLED_RECIPE` shows; what a file leaves out has the defaults of `hfnet_export.training.distill`.

    Raises:
        InputError: missing, not TOML, or a key or value that training does not know.
    """
    content = _parse(path, BUNDLED_RECIPE)
    tables = {name: _checked(path, name, kind, content.pop(name, {})) for name, kind in TABLES.items()}
    top = _checked(path, "", DistillConfig, content)
    stages = (tables["local"], tables["global"], tables["descriptors"], tables["hypercolumns"])
    config = DistillConfig(tables["network"], *stages, top.seed, top.held_out)
    sides = [(f"{name}.side", tables[name].side) for name in ("local", "descriptors", "hypercolumns")]
    for name, side in (*sides, *(("global.window", s) for s in config.global_.window)):
        if side % 32 or side < 64:
            raise InputError(f"{path}: {name} has {side}", "give multiples of 32, at least 64")
    if unknown := set(config.local.terms) - set(LOCAL_TERMS):
        raise InputError(f"{path}: local.terms has {', '.join(sorted(unknown))}", f"known: {', '.join(LOCAL_TERMS)}")
    return config


def read_crbnet_training_recipe(path: Path) -> CRBNetTraining:
    """Reads what `BUNDLED_CRBNET_RECIPE` shows; what a file leaves out has the defaults of `CRBNetTraining`.

    Raises:
        InputError: missing, not TOML, or a key or value that training does not know.
    """
    content = _parse(path, BUNDLED_CRBNET_RECIPE)
    network = _checked(path, "network", CRBNetConfig, content.pop("network", {}))
    config = replace(_checked(path, "", CRBNetTraining, content), network=network)
    if network.dim % 8:
        raise InputError(f"{path}: network.dim is {network.dim}", "give a multiple of 8: its signs are stored in bytes")
    if config.batch < MIN_PAIRS:
        raise InputError(f"{path}: batch is {config.batch}", f"give at least {MIN_PAIRS}")
    return config


def read_densernet_training_recipe(path: Path) -> DenserNetTraining:
    """Reads what `BUNDLED_DENSERNET_RECIPE` shows; what a file leaves out has the defaults of `DenserNetTraining`.

    Raises:
        InputError: missing, not TOML, or a key or value that training does not know.
    """
    content = _parse(path, BUNDLED_DENSERNET_RECIPE)
    network = _checked(path, "network", DenserNetConfig, content.pop("network", {}))
    config = replace(_checked(path, "", DenserNetTraining, content), network=network)
    if len(config.input_size) != 2 or any(not isinstance(s, int) or s % 32 or s < 64 for s in config.input_size):
        raise InputError(f"{path}: input_size is {list(config.input_size)}", "give two multiples of 32, at least 64")
    if not config.photographs <= 1:
        raise InputError(f"{path}: photographs is {config.photographs}", "give a share from 0 to 1")
    return config


def _parse(path: Path, example: Path) -> dict[str, Any]:
    try:
        return parse_toml(read_text(path, MAX_SETTINGS))
    except OSError as e:
        raise InputError(f"cannot read the recipe {path}: {e.strerror}", "check its name") from e
    except ValueError as e:
        raise InputError(f"{path} is not TOML: {e}", f"copy {example} and change it") from e


def _checked(path: Path, table: str, kind: type, content: Any) -> Any:
    """``kind`` with the values of a table. They have the types of the defaults, and numbers are positive."""
    default = kind()
    values = {f.name: getattr(default, f.name) for f in fields(kind)}
    known = {name: value for name, value in values.items() if not is_dataclass(value)}
    if not isinstance(content, dict):
        raise InputError(f"{path}: {table} = {content!r}", f"write a table, [{table}]")
    for key, value in content.items():
        name = f"{table}.{key}" if table else key
        if key not in known:
            raise InputError(f"{path}: {name} is not known", f"known here: {', '.join(known)}")
        expected = known[key]
        if isinstance(expected, tuple) and isinstance(value, list):
            content[key] = tuple(value)
        elif isinstance(expected, float) and isinstance(value, int | float) and 0 <= value < MOST:
            content[key] = float(value)
        elif isinstance(expected, bool) and isinstance(value, bool):
            continue
        elif type(value) is not type(expected) or (
            isinstance(value, int) and not (0 if key == "seed" else 1) <= value < MOST
        ):
            raise InputError(f"{path}: {name} = {value!r}", f"give something like {expected!r}")
    return kind(**content)
