"""Weights on disk: one .npz of float16 arrays and a JSON card. `BUNDLED` and its like come with the package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

import keras
import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.shell.reading import open_input, parse_json
from hfnet_edge.shell.writing import atomic_write
from hfnet_export.networks.crbnet import CRBNetConfig, build_crbnet
from hfnet_export.networks.densernet import DenserNetConfig, build_densernet
from hfnet_export.networks.hfnet import HFNetConfig, build_hfnet, network_input
from hfnet_export.networks.pca import PCA
from hfnet_export.networks.weights_card import ABOUT

BUNDLED = Path(__file__).parent / "weights" / "hfnet.npz"
BUNDLED_CRBNET = Path(__file__).parent / "weights" / "crbnet.npz"
BUNDLED_DENSERNET = Path(__file__).parent / "weights" / "densernet.npz"
MAKERS: dict[type, tuple[str, str]] = {
    HFNetConfig: ("HF-Net", "hfnet-distill"),
    CRBNetConfig: ("CRBNet", "hfnet-train-crbnet"),
    DenserNetConfig: ("DenserNet", "hfnet-train-densernet"),
}

AnyConfig = HFNetConfig | CRBNetConfig | DenserNetConfig
Config = TypeVar("Config", HFNetConfig, CRBNetConfig, DenserNetConfig)


def save_weights(path: Path, model: keras.Model, config: AnyConfig, card: dict) -> None:
    """Writes every variable as float16, with ``config`` and ``card``, atomically."""
    arrays = {variable.path: np.asarray(variable).astype(np.float16) for variable in model.weights}
    about = json.dumps({"network": config.as_dict(), "card": card})
    with atomic_write(path) as f:
        np.savez_compressed(f, **{ABOUT: np.frombuffer(about.encode(), np.uint8)}, **arrays)  # type: ignore[arg-type]


def load_weights(path: Path) -> tuple[HFNetConfig, dict[str, np.ndarray], dict]:
    """Reads what `save_weights` wrote of an HF-Net: configuration, arrays by variable path, card.

    Raises:
        InputError: the file is missing, damaged, or not HF-Net weights but a CRBNet's, for example.
    """
    return _load(path, HFNetConfig)


def load_crbnet_weights(path: Path) -> tuple[CRBNetConfig, dict[str, np.ndarray], dict]:
    """`load_weights` of a CRBNet."""
    return _load(path, CRBNetConfig)


def load_densernet_weights(path: Path) -> tuple[DenserNetConfig, dict[str, np.ndarray], dict]:
    """`load_weights` of a DenserNet."""
    return _load(path, DenserNetConfig)


def _load(path: Path, kind: type[Config]) -> tuple[Config, dict[str, np.ndarray], dict]:
    name, maker = MAKERS[kind]
    try:
        with open_input(path) as opened, np.load(opened) as file:
            arrays = {name: file[name] for name in file.files}
        about = parse_json(arrays.pop(ABOUT).tobytes())
        network, card = about["network"], about["card"]
        for other, (its_name, _) in MAKERS.items():
            if other is not kind and network.keys() == {field.name for field in fields(other)}:
                raise InputError(
                    f"{path} holds {its_name} weights, not those of {name}", f"give a file that {maker} wrote"
                )
        return kind(**network), arrays, card
    except InputError:
        raise
    except FileNotFoundError as e:
        raise InputError(f"there are no weights at {path}", f"train them with {maker}") from e
    except Exception as e:
        raise InputError(f"{path} does not hold {name} weights ({e})", f"give a file that {maker} wrote") from e


def hfnet_from_weights(
    path: Path, input_size: tuple[int, int], global_dim: int | None = None, batch: int | None = None
):
    """The Keras model with its weights, in float32.

    Args:
        global_dim: keep this many dimensions of the global descriptor; they are ordered by importance.

    Returns:
        The model, and the hash that identifies the weights whatever the input size or precision.

    Raises:
        InputError: bad file, or ``global_dim`` is more than the weights have.
    """
    config, arrays, _ = load_weights(path)
    narrow = _narrowed(config, global_dim)
    return _assigned(build_hfnet(narrow, input_size, batch), arrays, narrow, path), weights_hash(arrays)


def densernet_from_weights(
    path: Path, input_size: tuple[int, int], global_dim: int | None = None, batch: int | None = None
) -> tuple[keras.Model, str]:
    """As `hfnet_from_weights`, of a DenserNet."""
    config, arrays, _ = load_densernet_weights(path)
    narrow = _narrowed(config, global_dim)
    return _assigned(build_densernet(narrow, input_size, batch), arrays, narrow, path), weights_hash(arrays)


Wide = TypeVar("Wide", HFNetConfig, DenserNetConfig)


def _narrowed(config: Wide, global_dim: int | None) -> Wide:
    """With so many dimensions of the global descriptor. Raises InputError."""
    global_dim = config.global_dim if global_dim is None else global_dim
    if not 1 <= global_dim <= config.global_dim:
        raise InputError(f"--global-dim {global_dim} is not possible", f"these weights have 1 to {config.global_dim}")
    return replace(config, global_dim=global_dim)


def _assigned(
    model: keras.Model, arrays: dict[str, np.ndarray], config: HFNetConfig | DenserNetConfig, path: Path
) -> keras.Model:
    dim = config.global_dim
    _assign(model, {k: v[..., :dim] if k.startswith("projection/") else v for k, v in arrays.items()}, path)
    return model


def crbnet_from_weights(path: Path) -> tuple[keras.Model, CRBNetConfig, str]:
    """The Keras model with its weights, in float32, its configuration, and the hash that identifies the weights.

    Raises:
        InputError: bad file.
    """
    config, arrays, _ = load_crbnet_weights(path)
    model = build_crbnet(config)
    _assign(model, arrays, path)
    return model, config, weights_hash(arrays)


def _assign(model: keras.Model, arrays: dict[str, np.ndarray], path: Path) -> None:
    for variable in model.weights:
        if variable.path not in arrays:
            raise InputError(f"{path} lacks {variable.path}", "it was written for another network; train again")
        array = arrays[variable.path].astype(np.float32)
        if array.shape != variable.shape or not np.isfinite(array).all():
            raise InputError(f"{path}: {variable.path} is damaged", "train again, or use the bundled weights")
        variable.assign(array)


def fold_pca(network: keras.Model, path: Path, photos: Sequence[np.ndarray]) -> str:
    """Learns the dimensions of ``network``'s global descriptor on the photos of a place, and folds them in.

    Args:
        network: of `hfnet_from_weights`, with fewer dimensions than there are photos; changed in place.
        path: its weights.
        photos: (H, W) uint8 of its input size, the reference images of a map for example.

    Returns:
        The hash of the new weights.

    Raises:
        InputError: there are too few photos.
    """
    whole, _ = hfnet_from_weights(path, network.input.shape[1:3])
    projection = whole.get_layer("projection")
    before_the_norm = keras.Model(whole.input, projection.output)
    vectors = np.concatenate([np.asarray(before_the_norm(network_input(p[None]), training=False)) for p in photos])
    folded = network.get_layer("projection")
    folded.set_weights(PCA.fit(vectors, folded.units).fold(*projection.get_weights()))
    return weights_hash({variable.path: np.asarray(variable) for variable in network.weights})


def weights_hash(arrays: dict[str, np.ndarray]) -> str:
    """32 hex digits over names, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], dtype="<f2")
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:32]
