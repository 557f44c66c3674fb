"""A reference bundle: what the float pipeline made of a list of queries, and all that it takes to ask again elsewhere.

    reference.json    true poses, thresholds, the image file of each query
    recording.zip     see `hfnet_edge.record.recording_file`
    map.hfmap, images/..., *.tflite          of the recording; hloc's results have no map and no network. Networks are
                      called as in a job: model.tflite, a patch network patches.tflite

One file, so that a gate of a CI needs nothing else. All but reference.json is stored as it is: a bundle unfolds to no
more than its own size, whatever that is. reference.json has at most 16 MiB, an image what
`hfnet_edge.image.photo` reads; of the recording see there.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hfnet_edge.errors import OutputError, RecordingError
from hfnet_edge.geometry import Pose
from hfnet_edge.image.image_file import MAX_FILE
from hfnet_edge.record.recording import Recording
from hfnet_edge.record.recording_file import (
    MAX_ARRAYS,
    MAX_MANIFEST,
    pose_from_json,
    pose_to_json,
    read_recording,
    to_bytes,
)
from hfnet_edge.record.runner import IMAGES, MAP, RECORDING
from hfnet_edge.shell.archive import add, member, open_archive
from hfnet_edge.shell.reading import open_input, read_bytes
from hfnet_edge.shell.writing import atomic_write
from hfnet_maps.evaluation.errors import THRESHOLDS, Threshold

FORMAT = 1
MANIFEST = "reference.json"
REMEDY = "record it again with `hfnet-parity record`"


@dataclass(frozen=True)
class Bundle:
    """An open bundle.

    Attributes:
        path: of the file.
        recording: of the reference.
        truth: query to its true cam_from_world; empty where none was given.
        thresholds: of the recall.
        images: query to the member of the zip that is its image file.
        members: of the zip.
    """

    path: Path
    recording: Recording
    truth: dict[str, Pose]
    thresholds: tuple[Threshold, ...]
    images: dict[str, str]
    members: frozenset[str]

    @classmethod
    def read(cls, path: Path | str) -> Bundle:
        """Opens a bundle; images, map and model stay in the file. Raises RecordingError."""
        path = Path(path)
        try:
            with _open(path) as file:
                about = json.loads(member(file, MANIFEST, MAX_MANIFEST))
                if (found := int(about["format"])) != FORMAT:
                    raise RecordingError(f"{path} is of format {found}, not {FORMAT}", "update hfnet-edge")
                recording = read_recording(member(file, RECORDING, MAX_ARRAYS), str(path))
                truth = {str(name): pose_from_json(row) for name, row in about["truth"].items()}
                thresholds = tuple(Threshold(float(m), float(deg)) for m, deg in about["thresholds"])
                images = {str(name): str(value) for name, value in about["images"].items()}
                members = frozenset(file.namelist())
        except RecordingError:
            raise
        except OSError as e:
            raise RecordingError(f"cannot read the bundle {path}: {e.strerror or e}", "check its name") from e
        except Exception as e:  # zipfile, json and the fields
            raise RecordingError(f"{path} is damaged or not a bundle ({type(e).__name__}: {e})", REMEDY) from e
        queries, files = [q.name for q in recording.queries], {Path(name).name for name in images.values()} - {"", ".."}
        if not queries or set(queries) != set(images) or set(images.values()) - members or not thresholds:
            raise RecordingError(f"{path} has no queries, no thresholds, or not the images of all queries", REMEDY)
        if not len(queries) == len(images) == len(files):
            raise RecordingError(f"{path} has queries or images of equal names", REMEDY)
        return cls(path, recording, {n: p for n, p in truth.items() if p}, thresholds, images, members)

    def image(self, query: str) -> bytes:
        """A query's image file. Raises RecordingError."""
        return self._read(self.images[query], MAX_FILE)

    def member(self, name: str) -> bytes:
        """The map or a model, as large as it is in the file. Raises RecordingError: absent or damaged."""
        if name not in self.members:
            raise RecordingError(f"{self.path} has no {name}", REMEDY)
        return self._read(name)

    def _read(self, name: str, most: int | None = None) -> bytes:
        try:
            with _open(self.path) as file:
                return member(file, name, file.getinfo(name).file_size if most is None else most)
        except Exception as e:
            raise RecordingError(f"{self.path}: {name} is damaged ({type(e).__name__}: {e})", REMEDY) from e

    def unpack_images(self, folder: Path) -> None:
        """Writes the queries' images below ``folder``, as `files` names them. Raises RecordingError: one is damaged.
        OutputError: the folder cannot be written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for query, file in self.files().items():
                (folder / file).write_bytes(self.image(query))
        except OSError as e:
            raise OutputError(f"cannot write into {folder}: {e.strerror or e}", "make room there") from e

    def files(self) -> dict[str, str]:
        """Query to the name of its image file in a job."""
        return {query: Path(name).name for query, name in self.images.items()}


@contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    """A bundle's zip, of which only the manifest is compressed. Raises ValueError, OSError or what zipfile raises."""
    with open_input(path) as stream, open_archive(stream, MAX_MANIFEST) as file:
        for entry in file.infolist():
            if entry.compress_type != zipfile.ZIP_STORED and entry.filename != MANIFEST:
                raise ValueError(f"{entry.filename} is compressed")
        yield file


def write_bundle(
    path: Path,
    recording: Recording,
    images: Mapping[str, Path],
    networks: dict[str, bytes],
    map_: bytes | None,
    truth: Mapping[str, Pose],
    thresholds: Sequence[Threshold] = THRESHOLDS,
) -> None:
    """Writes a bundle atomically.

    Args:
        images: query to its file.
        networks: name in the bundle to the file's bytes. map_: the file's bytes; None: none.

    Raises:
        OutputError: ``path`` cannot be written. RecordingError: a file went away.
    """
    members = {q.name: f"{IMAGES}/{i:06d}{images[q.name].suffix.lower()}" for i, q in enumerate(recording.queries)}
    about = {
        "format": FORMAT,
        "truth": {name: pose_to_json(pose) for name, pose in truth.items()},
        "thresholds": [[t.position, t.rotation] for t in thresholds],
        "images": members,
    }
    with atomic_write(path) as out, zipfile.ZipFile(out, "w") as file:
        add(file, MANIFEST, json.dumps(about, indent=1).encode())
        add(file, RECORDING, to_bytes(recording), compressed=False)
        for name, content in (networks | ({} if map_ is None else {MAP: map_})).items():
            add(file, name, content, compressed=False)
        for query, name in members.items():
            try:
                add(file, name, read_bytes(images[query]), compressed=False)
            except OSError as e:
                raise RecordingError(f"cannot read {images[query]}: {e.strerror}", "check the file") from e
