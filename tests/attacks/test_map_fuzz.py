"""Maps with random damage, with and without right checksums: an answer, or an error of ours, soon and in little memory.

`mutant(number)` is always the same file, so what fails names itself:

    python -c "from attacks.test_map_fuzz import survives; survives(4711)"      (with tests/ on the path)
"""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

from attacks.tampering import assembled, at_most, parts, resealed, table, with_meta, with_sections
from attacks.victims import KINDS, a_query, victim
from hfnet_edge.errors import HFNetEdgeError, MapFormatError
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.container import MapBytes, Section
from hfnet_edge.map.map_file import TILE, LocalizationMap
from hfnet_edge.map.observation_list import decode
from hfnet_edge.networks.by_role import Networks, check_networks, weights_of
from hfnet_maps.content import content_of
from hfnet_maps.pack.observation_list import encode
from synthetic import CAMERA, EXTRACTOR

SECONDS = 1.0  # of the processor, a file
MEMORY = 20  # times the file's size, and
SPARE = 8 << 20  # bytes
WORDS = [0, 1, 2, 3, 7, 8, 63, 64, 127, 128, 255, 256, 1040, 16384, 2**15, 2**16 - 1, 2**16, 2**24, 2**31 - 1, 2**31]
WORDS += [2**32 - 2, 2**32 - 1, 2**32, 2**53, 2**60, 2**63 - 1, 2**63, 2**64 - 64, 2**64 - 2, 2**64 - 1]
FLOATS = [np.nan, np.inf, -np.inf, -0.0, 1e-45, 1e-300, 3e38, -3e38, 1e300, 1.7e308]

# --- Mutation ---------------------------------------------------------------------------------------------------------


def mutated(data: bytes, rng: np.random.Generator, at: int | None = None) -> bytes:
    """One change, at a byte or at any. One in ten changes the length."""
    at = int(rng.integers(len(data) + 1)) if at is None else at
    kind = int(rng.integers(7)) if rng.random() < 0.9 else int(rng.integers(7, 9))
    if kind == 0:  # flipped bits
        return _over(data, at, bytes([data[at % len(data)] ^ 1 << rng.integers(8)]) if data else b"")
    if kind == 1:  # bytes
        return _over(data, at, rng.integers(0, 256, rng.integers(1, 9)).astype(np.uint8).tobytes())
    if kind == 2:  # a block of anything
        return _over(data, at, rng.integers(0, 256, rng.integers(1, 600)).astype(np.uint8).tobytes())
    if kind == 3:  # a block of one byte
        return _over(data, at, bytes([int(rng.choice([0, 1, 127, 128, 255]))]) * int(rng.integers(1, 3000)))
    if kind == 4:  # an interesting number in place of 2, 4 or 8 bytes
        size = int(rng.choice([2, 4, 8]))
        return _over(data, at - at % size, (WORDS[rng.integers(len(WORDS))] % 256**size).to_bytes(size, "little"))
    if kind == 5:
        dtype = str(rng.choice(["<f4", "<f8"]))
        with np.errstate(all="ignore"):
            value = np.array(FLOATS[rng.integers(len(FLOATS))]).astype(dtype)
        return _over(data, at - at % value.itemsize, value.tobytes())
    if kind == 6:  # a piece is copied elsewhere
        other = int(rng.integers(len(data) + 1))
        return _over(data, at, data[other : other + int(rng.choice([1, 4, 8, 20, 64, 500]))])
    if kind == 7:  # the end is missing, or a piece is
        return data[:at] + data[at + int(rng.choice([1, 4, 64, 1000, len(data)])) :]
    return data[:at] + bytes(int(rng.choice([1, 4, 64, 1000]))) + data[at:]


def _over(data: bytes, at: int, new: bytes) -> bytes:
    """``new`` over the bytes from ``at``, as far as there are any."""
    new = new[: max(0, len(data) - at)]
    return data[:at] + new + data[at + len(new) :]


def mutant(number: int) -> tuple[bytes, str, bool]:
    """A damaged file, the kind of map that it was, and whether its checksums are right."""
    rng = np.random.default_rng(number)
    kind = list(KINDS)[number % len(KINDS)]
    content = victim(kind).content
    sealed = bool(number // len(KINDS) % 2)
    if sealed and rng.random() < 0.3:
        return nonsense(content, rng), kind, True
    if sealed and rng.random() < 0.7:  # a whole file of sections that are not
        sections = parts(content)
        for _ in range(rng.integers(1, 3)):
            hit = int(rng.choice(list(sections)))
            if rng.random() < 0.03:
                del sections[hit]
            else:
                sections[hit] = mutated(sections[hit], rng)
            if len(sections) == 1:
                break
        return assembled(sections), kind, True
    for _ in range(rng.integers(1, 5)):
        content = mutated(content, rng, _somewhere(content, rng))
    return (resealed(content, size=bool(rng.random() < 0.7)) if sealed else content), kind, sealed


def nonsense(content: bytes, rng: np.random.Generator) -> bytes:
    """A file in which all lengths are right, and little else: what is behind the checks of lengths."""
    images, landmarks = int(rng.integers(7)), int(rng.choice([0, 1, 255, 256, 257, 600]))
    bits = int(rng.choice([0, 2, 16]))
    rows = landmarks if not bits else int(landmarks * rng.choice([1, 1.5, 2.5, 4]))
    local, extractor = (32, 16) if rng.random() < 0.8 else (int(rng.integers(1, 40)), int(rng.integers(1, 20)))
    codec, subspaces = str(rng.choice(["int8", "pq", "binary"])), int(rng.integers(1, 9))
    code = subspaces * int(rng.integers(1, 17)) if codec == "pq" else int(rng.integers(1, 65))
    width = int(rng.integers(1, extractor + 1))
    row = {"pq": subspaces, "binary": -(-code // 8), "int8": code}[codec]

    def anything(*shape: int, dtype: str = "u1") -> np.ndarray:
        how, size = rng.random(), int(np.prod(shape)) * np.dtype(dtype).itemsize
        flat = bytes([int(rng.integers(256))]) * size if how < 0.2 else rng.bytes(size)
        return np.frombuffer(flat, dtype).reshape(shape)

    poses = np.zeros((images, 7))
    poses[:, rng.integers(4)] = 1
    tiles = np.zeros(-(-landmarks // 256), TILE)
    tiles["origin"] = 10.0 ** rng.integers(-46, 39, tiles["origin"].shape) * rng.choice([-1, 1], tiles["origin"].shape)
    tiles["step"] = 10.0 ** rng.integers(-46, 39) if rng.random() < 0.5 else -1e-3
    counts = anything((landmarks * bits + 7) // 8)
    if bits == 16 and rng.random() < 0.8:
        counts = rng.integers(0, 3, landmarks).astype("<u2").view(np.uint8)
    if bits and rng.random() < 0.8 and len(counts):  # where each tile would begin, and as many rows as there are
        each = counts.view("<u2").astype(int) if bits == 16 else (counts[:, None] >> np.arange(0, 8, 2) & 3).ravel()
        ends = np.cumsum(each[:landmarks] + 1)
        tiles["first_descriptor"] = np.concatenate([[0], ends])[:landmarks:256]
        rows = min(int(ends[-1]), 4 * landmarks)
    lists = []
    for _ in range(images):
        seen = np.sort(rng.choice(max(1, landmarks), int(rng.integers(max(1, landmarks))), replace=False))
        lists.append(encode(seen) if rng.random() < 0.9 else mutated(encode(seen), rng))
    sections = {
        "IMAGE_NAMES": b"".join(b"%d\n" % i for i in range(images)),
        "IMAGE_POSES": poses,
        "GLOBAL_PROJECTION": anything(width, extractor) if width != extractor else None,
        "GLOBAL_DESCRIPTORS": anything(images, width),
        "OBSERVATION_OFFSETS": np.cumsum([0, *map(len, lists)]).astype("<u4"),
        "OBSERVATION_LISTS": b"".join(lists),
        "TILES": tiles,
        "LANDMARK_POSITIONS": anything(landmarks, 3, dtype="<u2"),
        "DESCRIPTOR_COUNTS": counts if bits else None,
        "PROJECTION": anything(code, local) if code != local or codec != "int8" else None,
        "THRESHOLDS": anything(code, dtype="<i4") if codec == "binary" else None,
        "CODEBOOK": anything(subspaces, 256, code // subspaces) if codec == "pq" else None,
        "DESCRIPTORS": anything(rows, row),
    }
    content = with_sections(
        content, **{k: p.tobytes() if isinstance(p, np.ndarray) else p for k, p in sections.items()}
    )
    return with_meta(
        content, imageCount=images, landmarkCount=landmarks, descriptorCount=rows, countBits=bits, codeDim=code,
        observationCount=sum(len(decode(np.frombuffer(data, np.uint8))) if _reads(data) else 0 for data in lists),
        localDim=local, extractorGlobalDim=extractor, globalDim=width, codec=codec, subspaces=subspaces,
        originX=float(rng.choice(FLOATS)) if rng.random() < 0.1 else 0.0,
    )  # fmt: skip


def _reads(data: bytes) -> bool:
    try:
        decode(np.frombuffer(data, np.uint8))
    except ValueError:
        return False
    return True


def _somewhere(content: bytes, rng: np.random.Generator) -> int | None:
    """Any byte; or one of the head; or one of some section, so that small ones are hit too."""
    rows = table(content)
    where = rng.random()
    if where < 0.4 or not rows:
        return None
    if where < 0.45:
        return min(int(rng.integers(64 + 24 * len(rows))), len(content))
    _, offset, length = rows[rng.integers(len(rows))]
    return min(offset + int(rng.integers(min(length, 1 << 30) + 1)), len(content))


# --- What the reader makes of it --------------------------------------------------------------------------------------

Question = tuple[str, Callable[[LocalizationMap], object]]


def whole(m: LocalizationMap) -> object:
    m.check_all()
    return "whole"


def images(m: LocalizationMap) -> object:
    assert len(m.image_names) == len(m.image_poses) == m.image_count
    assert all(np.isfinite([*m.pose(i).quaternion, *m.pose(i).translation]).all() for i in range(min(3, m.image_count)))
    assert m.global_descriptors.shape == (m.image_count, m.description.globalDim)
    return m.image_names, m.image_poses.tobytes(), m.global_descriptors.tobytes()


def landmarks_of(image: int) -> Callable[[LocalizationMap], object]:
    def landmarks(m: LocalizationMap) -> object:
        if not m.image_count:
            return None
        observed = m.observed(image % m.image_count)
        assert observed.dtype == np.int64 and (np.diff(observed) > 0).all()
        assert not len(observed) or 0 <= observed[0] <= observed[-1] < m.landmark_count
        positions = m.positions(observed)
        assert positions.shape == (len(observed), 3) and np.isfinite(positions).all()
        descriptors, owners = m.descriptors(observed)
        assert descriptors.dtype == np.int8 and descriptors.shape == (len(owners), m.codec.dim)
        assert len(owners) <= m.description.descriptorCount and (np.diff(owners) >= 0).all()
        assert np.unique(owners).tolist() == list(range(len(observed)))
        return observed.tobytes(), positions.tobytes(), descriptors.tobytes(), owners.tobytes()

    return landmarks


def located(m: LocalizationMap) -> object:
    check_networks(Networks(SimpleNamespace(description=EXTRACTOR, path="")), m, weights_of(m).keys())
    found = localize_features(m, a_query(), CAMERA)
    if found.pose is None:
        return found.status, None
    assert np.isfinite([*found.pose.quaternion, *found.pose.translation]).all()
    return found.status, found.pose.quaternion.tobytes(), found.pose.translation.tobytes()


def packed(m: LocalizationMap) -> object:
    source = content_of(m)
    assert len(source.names) == m.image_count and len(source.positions) == m.landmark_count
    rows = source.encoded().codes.tobytes()
    return source.names, source.landmarks.tobytes(), source.described.tobytes(), rows


QUESTIONS: dict[str, Callable[[LocalizationMap], object]] = {
    "images": images,
    "landmarks 0": landmarks_of(0),
    "landmarks 3": landmarks_of(3),
    "located": located,
    "packed": packed,
    "whole": whole,
}


@cache
def right(kind: str, name: str) -> object:
    """What the map answers that nobody touched."""
    return QUESTIONS[name](victim(kind).read())


def survives(number: int) -> str:
    """Asks a mutant. Returns what came of it: "refused" by opening, "noticed" later, "same" or "other" answers.

    Raises:
        AssertionError, or whatever else came of it, with the mutant's number.
    """
    content, kind, sealed = mutant(number)
    turn = number // (2 * len(KINDS))
    asked = ["images", f"landmarks {3 * (turn % 2)}"]
    asked += ["located"] if turn % 3 == 1 else []
    asked += ["packed"] if turn % 5 == 2 else []
    expected = {name: right(kind, name) for name in asked}
    measured = turn % 7 == 5
    try:
        with at_most(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("error")
            if measured:
                tracemalloc.start()
            try:
                return _outcome(content, content == victim(kind).content, sealed, expected)
            finally:
                if measured:
                    peak = tracemalloc.get_traced_memory()[1]
                    tracemalloc.stop()
                    assert peak <= MEMORY * len(content) + SPARE, f"{peak} bytes for a file of {len(content)}"
    except (Exception, KeyboardInterrupt) as e:
        e.add_note(f"mutant({number}), made of {kind!r}, {'with' if sealed else 'without'} right checksums")
        raise


def _outcome(content: bytes, untouched: bool, sealed: bool, expected: dict[str, object]) -> str:
    refusal = HFNetEdgeError if sealed else MapFormatError
    try:
        m = LocalizationMap.read(content)
    except MapFormatError:
        assert not untouched
        return "refused"
    noticed, other = False, False
    for name, wanted in expected.items():
        try:
            answer = QUESTIONS[name](m)
        except refusal as e:
            assert not untouched
            noticed |= isinstance(e, MapFormatError) and name != "packed"  # the sections for tools are its own matter
        else:
            assert sealed or answer == wanted, f"{name}: another answer, and no right checksum"
            other |= answer != wanted
    try:
        m.check_all()
    except MapFormatError:
        assert not untouched
        return "noticed"
    assert not noticed, "check_all finds nothing, and a question does"
    assert sealed or untouched, "check_all finds nothing, and bytes have changed"
    return "other" if other else "same"


# --- Tests ------------------------------------------------------------------------------------------------------------


def campaign(numbers: range) -> dict[str, int]:
    """How many mutants came to which end."""
    ends = dict.fromkeys(("refused", "noticed", "same", "other"), 0)
    for number in numbers:
        ends[survives(number)] += 1
    return ends


def test_2_000_mutants_are_survived():
    ends = campaign(range(2_000))
    assert min(ends.values()) > 20, f"a fuzzer that sees one side only: {ends}"


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_100_000_mutants_are_survived(part):
    print(campaign(range(10_000 * part, 10_000 * (part + 1))))


def test_mutants_are_always_the_same_and_of_every_kind():
    assert [mutant(n) for n in range(40)] == [mutant(n) for n in range(40)]
    kinds = {(kind, sealed) for _, kind, sealed in map(mutant, range(40))}
    assert len(kinds) == 2 * len(KINDS)


def test_a_file_is_read_like_bytes(tmp_path):
    for number in range(0, 400, 7):
        content, _, _ = mutant(number)
        (tmp_path / "m").write_bytes(content)
        said = []
        for where, read in ((str(tmp_path / "m"), lambda: LocalizationMap.open(tmp_path / "m")), (
            "the map", lambda content=content: LocalizationMap.read(content)
        )):  # fmt: skip
            try:
                m = read()
                said.append((whole(m), images(m)))
            except MapFormatError as e:
                said.append(e.problem.replace(where, ""))
        assert said[0] == said[1] or not content, number


def test_the_fuzzer_notices_what_it_should(monkeypatch):
    """A reader without its checks does not survive."""
    monkeypatch.setattr(MapBytes, "check", lambda *_: None)
    monkeypatch.setattr(MapBytes, "check_rows", lambda *_: None)
    with pytest.raises(AssertionError) as caught:
        campaign(range(200))
    assert "mutant(" in caught.value.__notes__[0]


def test_a_map_with_a_section_more_is_still_read():
    """What a sealed mutant adds to a map need not disturb it."""
    sections = parts(victim("pq").content) | {99: b"?"}
    m = LocalizationMap.read(assembled(sections))
    assert located(m) == right("pq", "located") and Section.META in m.file.sections
