"""Deltas between maps: they lead to the new map byte for byte, or to nothing."""

import hashlib
import io
import zlib
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hfnet_edge.errors import DeltaError
from hfnet_edge.map.delta import COPY, HEADER, LARGEST, MAGIC, SHORTEST, STEP, apply_delta, make_delta
from hfnet_maps.cli import main
from hfnet_maps.pack.writer import full_sections, write_map
from synthetic import place

SAMPLES = Path(__file__).parents[2] / "maps" / "samples"
OLD, NEW = ((SAMPLES / name).read_bytes() for name in ("calibrated.hfmap", "georeference.hfmap"))
needs_cryptography = pytest.mark.skipif(find_spec("cryptography") is None, reason="the extra signing is not installed")


def applied(base, delta, verify=None):
    out = io.BytesIO()
    apply_delta(base, delta, out, verify)
    return out.getvalue()


def forged(base, result, copies, literals, **changed):
    """A delta whose checksum is right, whatever it holds."""
    rows = b"".join(COPY.pack(*row) for row in copies)
    parts = changed.get("packed_copies", zlib.compress(rows)), zlib.compress(literals)
    head = HEADER.pack(
        MAGIC, 1, 0, changed.get("signature", 0), hashlib.sha256(base).digest(), hashlib.sha256(result).digest(),
        changed.get("base_size", len(base)), changed.get("result_size", len(result)),
        changed.get("count", len(copies)), *map(len, parts),
    )  # fmt: skip
    body = head + b"".join(parts) + changed.get("more", b"")
    return body + hashlib.sha256(body).digest()


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """A map, and one of an image and landmarks more of the place."""
    folder = tmp_path_factory.mktemp("maps")
    source = place(images=8, landmarks=400).source()
    write_map(full_sections(source), folder / "new.hfmap")
    write_map(full_sections(source.without_images(np.array([5]))), folder / "old.hfmap")
    return folder / "old.hfmap", folder / "new.hfmap"


def test_a_map_that_grew(maps):
    old, new = (path.read_bytes() for path in maps)
    for base, result in ((old, new), (new, old)):
        delta = make_delta(base, result)
        assert applied(base, delta) == result
        assert len(delta) < 0.6 * len(zlib.compress(result, 9))


@pytest.mark.parametrize(
    ("base", "result"),
    [
        (b"", b""),
        (b"", b"x" * 5),
        (b"x" * 5, b""),
        (bytes(3 * STEP), bytes(2 * STEP)),
        (NEW, OLD),
        (NEW, NEW[:100] + OLD + NEW[50:] + b"end"),
        (NEW, NEW[700:] + NEW[:700]),
        (OLD, bytes(range(256)) * 300 + OLD[::-1]),
    ],
)
def test_any_bytes(base, result):
    assert applied(base, make_delta(base, result)) == result


def test_bytes_across_windows():
    rng = np.random.default_rng(3)
    base = rng.bytes((1 << 21) + 12345)
    cuts = [0, 100_001, (1 << 20) - 7, (1 << 20) + 9, 1_900_003, len(base)]
    result = b"".join(rng.bytes(37) + base[a:b] for a, b in pairwise(cuts))
    delta = make_delta(base, result)
    assert applied(base, delta) == result
    assert len(delta) < 37 * 5 + 12 * 5 + 300


def test_equal_maps_make_a_tiny_delta(maps):
    new = maps[1].read_bytes()
    delta = make_delta(new, new)
    assert len(delta) < 200
    assert applied(new, delta) == new


def test_the_base_is_checked_by_hash():
    delta = make_delta(OLD, NEW)
    with pytest.raises(DeltaError, match=f"hash {hashlib.sha256(OLD).hexdigest()[:16]}.*has [0-9a-f]{{16}}; give"):
        applied(OLD[:-1] + bytes([OLD[-1] ^ 1]), delta)
    with pytest.raises(DeltaError, match="leads to already"):
        applied(NEW, delta)


def test_deltas_apply_in_their_order_and_once():
    first, second, third = OLD, OLD[:300] + NEW, NEW
    one, two = make_delta(first, second), make_delta(second, third)
    assert applied(applied(first, one), two) == third
    for base, delta in ((first, two), (third, one)):
        with pytest.raises(DeltaError, match="is a change of the map with hash"):
            applied(base, delta)


def test_cut_off_at_every_length():
    delta = make_delta(OLD, NEW)
    for length in range(len(delta)):
        with pytest.raises(DeltaError):
            applied(OLD, delta[:length])
    with pytest.raises(DeltaError, match="cut off or padded"):
        applied(OLD, delta + b"\0")


def test_flipped_bytes():
    delta, rng = make_delta(OLD, NEW), np.random.default_rng(1)
    for _ in range(2000):
        bad = bytearray(delta)
        bad[rng.integers(len(bad))] ^= rng.integers(1, 256)
        with pytest.raises(DeltaError):
            assert applied(OLD, bytes(bad)) is None


def test_flipped_bytes_under_a_right_checksum():
    """What somebody changed on purpose: never another file than the one that the delta names."""
    delta, rng = make_delta(OLD, NEW), np.random.default_rng(2)
    refused = 0
    for _ in range(2000):
        bad = bytearray(delta[:-32])
        bad[rng.integers(HEADER.size, len(bad))] ^= rng.integers(1, 256)
        bad += hashlib.sha256(bad).digest()
        try:
            assert applied(OLD, bytes(bad)) == NEW  # a bit of zlib's header says nothing of the content
        except DeltaError:
            refused += 1
    assert refused > 1900


@pytest.mark.parametrize(
    ("copies", "literals", "changed", "message"),
    [
        ([(0, 1, 64)], b"", {"result_size": 64}, "where the map is not"),  # a byte past the end
        ([(0, -1, 64)], b"", {"result_size": 64}, "where the map is not"),
        ([(0, 2**31 - 1, 64)], b"", {"result_size": 64}, "where the map is not"),
        ([(0, 0, 64), (0, -(2**31), 32)], b"", {"result_size": 96}, "where the map is not"),
        ([(0, 0, 64)], b"", {"result_size": 63}, "shorter or longer"),
        ([(2**32 - 1, 0, 64)], b"", {"result_size": 64}, "shorter or longer"),
        ([(0, 0, 0)], b"x" * 64, {"result_size": 64}, "shorter or longer"),
        ([(0, 0, -64)], b"x" * 64, {"result_size": 64}, "shorter or longer"),
        ([(0, 0, 64)], b"x", {"result_size": 64}, "unfold"),  # a literal too many
        ([(0, 0, 64)], b"x", {"result_size": 66}, "unfold"),  # one too few
        ([(0, 0, 64)], b"", {"result_size": 64, "count": 0}, "unfold"),
        ([(0, 0, 64)], b"", {"result_size": 128, "count": 2}, "unfold"),
        ([], b"", {"packed_copies": b"not zlib", "result_size": 64, "count": 1}, "unfold"),
        ([], b"", {"packed_copies": zlib.compress(b"") + b"more", "result_size": 0}, "unfold"),
        ([(0, 0, 64)], b"", {"result_size": LARGEST + 1}, "sizes"),
        ([(0, 0, 64)], b"", {"base_size": 1 << 63}, "sizes"),
        ([(0, 0, 64)], b"", {"base_size": 65, "result_size": 64}, "hash"),
        ([(0, 0, 64)], b"", {"signature": 64}, "cut off or padded"),
        ([(0, 0, 64)], b"", {"more": b"hidden"}, "cut off or padded"),
        ([(0, 0, 64)], b"", {"result_size": 64}, "does not lead to"),
    ],
)
def test_hostile(copies, literals, changed, message):
    with pytest.raises(DeltaError, match=message):
        applied(bytes(64), forged(bytes(64), b"another", copies, literals, **changed))


class Counted(io.RawIOBase):
    """Counts what is written, and its largest piece."""

    total = largest = 0

    def write(self, data):
        self.total, self.largest = self.total + len(data), max(self.largest, len(data))
        return len(data)


def test_a_bomb_does_not_unfold_beyond_the_size_that_it_claims():
    bomb, out = forged(OLD, NEW, [], bytes(1 << 26)), Counted()
    assert len(bomb) < 70_000
    with pytest.raises(DeltaError):
        apply_delta(OLD, bomb, out)
    assert out.total == len(NEW)
    out = Counted()
    with pytest.raises(DeltaError, match="does not lead to"):  # as much as it claims, in small pieces
        apply_delta(OLD, forged(OLD, NEW, [], bytes(1 << 22), result_size=1 << 22), out)
    assert out.total == 1 << 22 and out.largest <= STEP


def test_another_version():
    delta = bytearray(make_delta(OLD, NEW))
    delta[8] = 2
    with pytest.raises(DeltaError, match="version 2 delta"):
        applied(OLD, bytes(delta))


def test_copies_are_no_shorter_than_readers_take():
    assert SHORTEST == 16 and HEADER.size == 112 and COPY.size == 12  # as written in the module's table


def test_the_commands(maps, tmp_path):
    old, new = maps
    delta, out = tmp_path / "place.hfdelta", tmp_path / "out.hfmap"
    said = run("diff", old, new, "-o", delta)
    assert said.exit_code == 0, said.output
    assert "in place of" in said.stdout and f"next: hfnet-map apply {old} {delta} -o " in said.stdout
    said = run("apply", old, delta, "-o", out)
    assert said.exit_code == 0 and out.read_bytes() == new.read_bytes()
    assert f"next: hfnet-map inspect {out}" in said.stdout


def test_a_delta_that_saves_little_says_so(maps, tmp_path):
    old, new = maps
    assert "little in common" not in run("diff", old, new, "-o", tmp_path / "a.hfdelta").stdout
    said = run("diff", SAMPLES / "minimal.hfmap", SAMPLES / "pq.hfmap", "-o", tmp_path / "b.hfdelta")
    assert said.exit_code == 0 and "little in common" in said.stdout


def test_what_the_commands_refuse(maps, tmp_path):
    old, new = maps
    delta, out = tmp_path / "place.hfdelta", tmp_path / "out.hfmap"
    assert run("diff", old, new, "-o", delta).exit_code == 0
    damaged = tmp_path / "damaged.hfmap"
    damaged.write_bytes(new.read_bytes()[:-1] + b"\x99")
    bad = tmp_path / "bad.hfdelta"
    bad.write_bytes(forged(old.read_bytes(), new.read_bytes(), [], bytes(new.stat().st_size)))
    before = old.read_bytes()
    for arguments, words in [
        (("apply", new, delta, "-o", out), "leads to already"),
        (("apply", damaged, delta, "-o", out), "is a change of the map with hash"),
        (("apply", old, bad, "-o", out), "does not lead to the map"),
        (("apply", old, new, "-o", out), "is not a delta"),
        (("apply", old, tmp_path / "no.hfdelta", "-o", out), "cannot read the delta"),
        (("apply", old, delta, "-o", old), "another option names the same file"),
        (("diff", old, damaged, "-o", out), "damaged"),
        (("diff", old, delta, "-o", out), "not an hfnet-edge map"),
    ]:
        said = run(*arguments)
        assert said.exit_code == 2 and said.stdout == "", said.output
        (line,) = said.stderr.splitlines()
        assert words in line and "; " in line, line
    assert old.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {delta.name, damaged.name, bad.name}  # and no temporary


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two pairs of keys: private and public."""
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder, pairs = tmp_path_factory.mktemp("keys"), []
    for i in range(2):
        key = Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32)
        private, public = folder / f"private{i}.pem", folder / f"public{i}.pem"
        private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
        pairs.append((private, public))
    return pairs


@needs_cryptography
def test_signatures(maps, keys, tmp_path):
    (private, public), (other, other_public) = keys
    old, new = maps
    signed, unsigned, forgery, stripped = (tmp_path / f"{name}.hfdelta" for name in "abcd")
    out = tmp_path / "out.hfmap"
    assert "--trust PUBLIC.pem" in run("diff", old, new, "--key", private, "-o", signed).stdout
    assert run("diff", old, new, "-o", unsigned).exit_code == 0
    assert run("diff", old, new, "--key", other, "-o", forgery).exit_code == 0
    whole = signed.read_bytes()
    stripped.write_bytes(whole[:-64])

    for delta, trust, words in [
        (unsigned, public, "is not signed; "),
        (forgery, public, "not signed with the key that is trusted"),
        (signed, other_public, "not signed with the key that is trusted"),
        (stripped, public, "cut off"),
        (signed, private, "does not hold the key"),
        (signed, tmp_path / "no.pem", "cannot read the key"),
    ]:
        said = run("apply", old, delta, "--trust", trust, "-o", out)
        assert said.exit_code == 2 and words in said.stderr and not out.exists(), said.output
    assert "does not hold the key" in run("diff", old, new, "--key", public, "-o", out).stderr

    for at in range(len(whole) - 64, len(whole)):
        signed.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert run("apply", old, signed, "--trust", public, "-o", out).exit_code == 2
    signed.write_bytes(whole)
    for trust in (("--trust", public), ()):
        out.unlink(missing_ok=True)
        assert run("apply", old, signed, *trust, "-o", out).exit_code == 0
        assert out.read_bytes() == new.read_bytes()


@needs_cryptography
def test_keys_of_another_kind(maps, tmp_path):
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key, path = X25519PrivateKey.generate(), tmp_path / "key.pem"
    for secret, words in (
        (s.NoEncryption(), "not a private Ed25519 key"),
        (s.BestAvailableEncryption(b"a"), "password"),
    ):
        path.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, secret))
        said = run("diff", *maps, "--key", path, "-o", tmp_path / "out.hfdelta")
        assert said.exit_code == 2 and words in said.stderr, said.output
    path.write_bytes(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    said = run("apply", maps[0], maps[1], "--trust", path, "-o", tmp_path / "out.hfmap")
    assert said.exit_code == 2 and "not a public Ed25519 key" in said.stderr
