"""Features that hloc extracted, in place of a network's: two HDF5 files, a group an image (Sarlin et al., CVPR 2019).

    features.h5 ─> keypoints, descriptors, scores;  global-feats.h5 ─> global descriptor

hloc counts pixels from the centre of the first one, this project from its corner: half a pixel is added. What network
made them the files do not say, so they go with maps that do not say it either: those packed from hloc's files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hfnet_edge.clock import Clock
from hfnet_edge.errors import InputError, MismatchError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.localizer import LocalizationConfig, LocalizationResult, localize_query
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.place_index import is_index
from hfnet_edge.methods.method import Query
from hfnet_edge.methods.registry import open_method
from hfnet_edge.prior import Prior
from hfnet_edge.shell.extras import needs
from hfnet_edge.shell.reading import open_input

if TYPE_CHECKING:
    import h5py

RESIZE_MAX = 1024  # hloc's default: longer images are scaled to so many pixels before the network sees them
MAX_VALUES = 1 << 27  # of one dataset; a file of a few bytes can claim to hold terabytes of zeros
AGAIN = "extract its features again with hloc"


class HlocLocalizer:
    """Localizes images by the features that hloc extracted of them.

    Args:
        map_: a `.hfmap` file or an open map, packed from hloc's files of the same networks.
        features, global_features: hloc's HDF5 files; they stay open.

    Raises:
        InputError: a file is missing or not HDF5. InstallError: h5py is not installed. MapFormatError: the map is
            missing or damaged.
        MismatchError: the map was built with a network that is known, or lacks what the method searches in.
    """

    def __init__(
        self,
        map_: LocalizationMap | Path | str,
        features: Path,
        global_features: Path,
        config: LocalizationConfig | None = None,
    ):
        self.map = map_ if isinstance(map_, LocalizationMap) else LocalizationMap.open(map_)
        if is_index(self.map):
            raise MismatchError(f"{self.map.path} is the index of a place in tiles", "name a map in one file")
        d = self.map.description
        if d.weightsHash:
            raise MismatchError(
                f"the map {self.map.path or ''} was built with {d.architecture}, weights {d.weightsHash}; "
                f"{features} does not say which network it is of",
                "name that network with --model, or pack the map from hloc's files without --model",
            )
        self.config = config or LocalizationConfig()
        self.method = open_method(self.map, None, self.config)
        self.features, self.global_features = opened(features), opened(global_features)

    def localize(self, name: str, camera: Camera, prior: Prior | None = None) -> LocalizationResult:
        """The pose of one image; ``prior`` is what is known beforehand.

        Raises:
            InputError: a file lacks the image, or is damaged there.
            MapFormatError: the map is damaged where the query touches it.
            MismatchError: the features are not as wide as the map's.
        """
        clock, d = Clock(), self.map.description
        with clock("load"):
            for file in (self.features, self.global_features):
                check_has(file, [name])
            query = read_features(self.features, self.global_features, name, camera)
        widths = query.descriptors.shape[1], len(query.global_descriptor)
        if widths != (d.localDim, d.extractorGlobalDim):
            raise MismatchError(
                f"the features of {name} are {widths[0]} (local) and {widths[1]} (global) wide, the map's "
                f"{d.localDim} and {d.extractorGlobalDim}",
                "extract them with the networks that the map's are of",
            )
        known = None if prior is None else prior.in_map(self.map)
        return localize_query(self.method, Query(query.pixel, query), camera, clock, known)


def read_features(features: h5py.File, global_features: h5py.File, name: str, camera: Camera) -> Features:
    """One image of hloc's two files, quantised as maps are packed; scores are 0 where there are none.

    Raises InputError: what is there of the image is damaged.
    """
    keypoints, descriptors = local_features(features, name)
    scores = np.zeros(len(keypoints), np.float32)
    if f"{name}/scores" in features:
        scores = values_of(features, name, "scores", 1).astype(np.float32)
    if len(scores) != len(keypoints):
        raise InputError(f"{features.filename} has {len(scores)} scores of {name}, {len(keypoints)} keypoints", AGAIN)
    order = np.argsort(-scores, kind="stable")
    return Features(
        keypoints[order].astype(np.float64) + 0.5,
        scores[order],
        descriptors[order],
        global_descriptor(global_features, name),
        network_pixel(camera),
    )


def network_pixel(camera: Camera) -> float:
    """`Features.pixel`, which the files do not say: as hloc scales images unless it is told otherwise."""
    return max(1.0, max(camera.width, camera.height) / RESIZE_MAX)


def local_features(file: h5py.File, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) keypoints, floats as they are stored, and (N, D) int8 descriptors of an image. Raises InputError."""
    keypoints, rows = values_of(file, name, "keypoints", 2), values_of(file, name, "descriptors", 2).T
    if keypoints.shape != (len(rows), 2):
        raise InputError(
            f"{file.filename} has {len(rows)} descriptors of {name} with keypoints of shape {keypoints.shape}", AGAIN
        )
    return keypoints, quantize(np.ascontiguousarray(rows))


def global_descriptor(file: h5py.File, name: str) -> np.ndarray:
    """(G,) int8 of an image. Raises InputError."""
    return quantize(values_of(file, name, "global_descriptor", 1)[None])[0]


@contextmanager
def open_features(path: Path, names: Sequence[str]) -> Iterator[h5py.File]:
    """An HDF5 file that has these images. Raises InputError, InstallError."""
    with opened(path) as file:
        check_has(file, names)
        yield file


def opened(path: Path) -> h5py.File:
    """An HDF5 file, for reading. Raises InputError, InstallError."""
    needs("maps", "h5py")
    import h5py

    try:
        open_input(path).close()  # HDF5 waits for pipes
    except FileNotFoundError as e:
        raise InputError(f"there is no file {path}", "give the file that hloc.extract_features wrote") from e
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}", "give the file that hloc.extract_features wrote") from e
    with _damage_of(path):
        return h5py.File(path)


def check_has(file: h5py.File, names: Sequence[str]) -> None:
    """Raises InputError: some of these images are not in the file."""
    with _damage_of(file.filename):
        missing = [name for name in names if name not in file]
    if missing:
        lacks = f"{len(missing)} of the {len(names)} images, first {missing[0]}" if len(names) > 1 else missing[0]
        raise InputError(f"{file.filename} lacks {lacks}", "extract the features of all with hloc.extract_features")


@contextmanager
def _damage_of(path: Path | str) -> Iterator[None]:
    """Turns what h5py raises within a damaged file into an InputError."""
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError) as e:
        raise InputError(f"{path} is damaged or not HDF5: {e}", "extract the features again with hloc") from e


def values_of(file: h5py.File, name: str, key: str, axes: int) -> np.ndarray:
    """A dataset of an image, floats of any width as they are stored. Raises InputError."""
    import h5py

    with _damage_of(file.filename):
        data = file.get(f"{name}/{key}")
        if not isinstance(data, h5py.Dataset) or data.dtype.kind != "f" or data.ndim != axes or data.size > MAX_VALUES:
            raise InputError(f"{file.filename} has no {key} of {name}", AGAIN)
        values = data[()]
    if not np.isfinite(values).all():
        raise InputError(f"{file.filename} has {key} of {name} that are not finite", AGAIN)
    return values
