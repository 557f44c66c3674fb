"""Lists of landmarks: what is encoded is decoded; other bytes decode to something sensible or are refused."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hfnet_edge.map.observation_list import TILE_SIZE, decode
from hfnet_maps.pack.observation_list import encode

LANDMARKS = 2**32  # of a map, at most
NUMBERS = st.one_of(
    st.sets(st.integers(0, LANDMARKS - 1), max_size=300),  # far apart
    st.sets(st.integers(0, 1500), max_size=1200),  # a few tiles, from sparse to full
    st.builds(  # full tiles here and there
        lambda tiles, left_out: {t * TILE_SIZE + i for t in tiles for i in range(TILE_SIZE)} - left_out,
        st.sets(st.integers(0, 40), max_size=6),
        st.sets(st.integers(0, 40 * TILE_SIZE), max_size=9),
    ),
)


def array(data):
    return np.frombuffer(bytes(data), np.uint8)


def slow_decode(data):
    """From the format's description, bit by bit, in Python's integers; None: the bytes are no list."""

    def number():
        value = 0
        for place in range(5):
            if not rest:
                return None
            byte = rest.pop(0)
            value |= (byte & 127) << 7 * place
            if byte < 128:
                return None if place and not byte else value  # no needless byte
        return None

    rest = list(data)
    if not rest:
        return []
    n, t = number(), number()
    if n is None or t is None or not 1 <= t <= n <= 256 * t or n > 8 * len(data):
        return None
    tile, tiles = -1, []
    for _ in range(t):
        gap = number()
        if gap is None:
            return None
        tile += gap + 1
        if tile * 256 >= LANDMARKS:
            return None
        tiles.append(tile)
    k = 0
    while 2 ** (k + 1) <= 256 * t // n:
        k += 1
    h = (256 * t - 1) // 2**k
    low_bytes, high_bytes = -(-n * k // 8), -(-(n + h) // 8)
    if len(rest) != low_bytes + high_bytes:
        return None
    low = [rest[i // 8] >> i % 8 & 1 for i in range(n * k)]
    high = [rest[low_bytes + i // 8] >> i % 8 & 1 for i in range(8 * high_bytes)]
    if sum(high) != n or any(high[n + h :]):
        return None
    local, zeros = [], 0
    for bit in high:
        if bit:
            i = len(local)
            local.append(zeros * 2**k + sum(low[i * k + j] << j for j in range(k)))
        else:
            zeros += 1
    if any(b <= a for a, b in pairwise(local)) or {number // 256 for number in local} != set(range(t)):
        return None
    if any(rest[i // 8] >> i % 8 & 1 for i in range(n * k, 8 * low_bytes)):
        return None
    return [tiles[number // 256] * 256 + number % 256 for number in local]


def agree(data):
    """Both readers say the same; returns what."""
    wanted = slow_decode(data)
    if wanted is None:
        with pytest.raises(ValueError):
            decode(array(data))
    else:
        found = decode(array(data))
        assert found.dtype == np.int64 and found.tolist() == wanted
    return wanted


@given(NUMBERS)
@example(set())
@example({0})
@example({LANDMARKS - 1})
@example(set(range(TILE_SIZE)))
@example(set(range(0, TILE_SIZE * 400, TILE_SIZE)))
@settings(deadline=None, max_examples=150)
def test_what_is_encoded_is_decoded(numbers):
    landmarks = sorted(numbers)
    data = encode(np.array(landmarks, np.int64))
    assert decode(array(data)).tolist() == landmarks
    assert slow_decode(data) == landmarks


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_a_list_or_refused(data):
    agree(data)


@given(NUMBERS.filter(bool), st.data())
@settings(deadline=None, max_examples=300)
def test_a_list_with_other_bytes_is_a_list_or_refused(numbers, data):
    content = bytearray(encode(np.array(sorted(numbers), np.int64)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, 3))
    agree(bytes(content[: len(content) - cut]) if data.draw(st.booleans()) else bytes(content) + bytes(cut))


def test_hostile_bytes_are_sometimes_lists():
    """Or else the two tests above would prove little."""
    rng = np.random.default_rng(0)
    whole = encode(np.arange(0, 600, 3))
    found = [agree(bytes([*whole[:-20], *rng.permutation(array(whole[-20:]))])) for _ in range(50)]
    assert any(found)


def varint(number):
    out = []
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


FOUR = encode(np.array([3, 5, 7, 300]))  # n = 4, t = 2: k = 7, 7 high bits


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\x80" * 20, "does not end"),
        (b"\x04", "does not end"),
        (b"\x80\x80\x80\x80\x80\x01\x01\x00\x00", "five bytes"),
        (varint(2**34) + varint(2**34) + bytes(20), "landmarks in"),
        (varint(2**32 - 1) + varint(2**24) + bytes(20), "landmarks in"),
        (b"\x00\x00", "0 landmarks"),
        (b"\x01\x02\x00\x00\x00\x00\x00", "1 landmarks in 2"),  # a tile without a landmark
        (b"\x08\x08\x00", "does not end"),
        (FOUR[:-1] + b"\x00", "more or fewer"),
        (FOUR[:-1] + b"\xff", "more or fewer"),
        (FOUR[:-1] + b"\x8f", "more or fewer"),
        (FOUR[:-1] + b"\x87", "more or fewer"),  # the right number, one past the end
        (FOUR + b"\x00", "another length"),
        (FOUR[:-1], "another length"),
        (FOUR[:4] + bytes(4) + FOUR[-1:], "does not increase"),
        (encode(np.array([3, 5])).replace(b"\x02", b"\x82\x00", 1), "needless byte"),
    ],
)
def test_hostile_lists_are_refused(data, word):
    assert slow_decode(FOUR) == [3, 5, 7, 300] and slow_decode(data) is None
    with pytest.raises(ValueError, match=word):
        decode(array(data))


def test_a_list_ends_at_the_last_landmark():
    assert decode(array(FOUR), 301).tolist() == [3, 5, 7, 300]
    for landmarks, word in [(300, "a landmark"), (257, "a landmark"), (256, "a tile"), (3, "4 landmarks")]:
        with pytest.raises(ValueError, match=word):
            decode(array(FOUR), landmarks)
    assert len(decode(array(b""), 0)) == 0
    with pytest.raises(ValueError):
        decode(array(FOUR), 0)


def test_tiles_that_wrap_around_64_bits_are_refused():
    """A million gaps of 2**35 sum up to 2**55; times 256 that is 0 in 64 bits, a landmark that is there."""
    t = 1 << 20
    fields = encode(np.arange(t) * TILE_SIZE)[6 + t :]  # after n, t and the gaps, of zeros
    data = varint(t) * 2 + b"\xff\xff\xff\xff\x7f" * (t - 1) + varint(t - 1) + fields
    with pytest.raises(ValueError, match="past"):
        decode(array(data))
    for gap in (1 << 24, (1 << 35) - 1):
        with pytest.raises(ValueError, match="past"):
            decode(array(b"\x01\x01" + varint(gap) + encode(np.array([5]))[3:]))


@pytest.mark.parametrize(
    "data",
    [
        encode(np.arange(0, 3_000_000, TILE_SIZE)),  # each in a tile of its own: the widest low parts
        encode(np.arange(100_000)),  # full tiles: the fewest bits
        encode(np.arange(0, 300_000, 3)),
        varint(8 * 50_000) + varint(8 * 50_000) + bytes(50_000),
        varint(8 * 50_000) + varint(2000) + bytes(50_000),
        varint(2**35 - 1) * 10_000,
        b"\x80" * 50_000,
        b"\x00" * 50_000,
    ],
)
def test_little_is_allocated_whatever_the_bytes_claim(data):
    tracemalloc.start()
    try:
        decode(array(data))
    except ValueError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 160 * len(data) + 10_000  # full tiles: a quarter of a byte becomes an int64, a few times


def test_a_list_takes_four_to_five_bits_a_landmark():
    rng = np.random.default_rng(0)
    tiles = np.sort(rng.choice(4000, 12, replace=False))
    landmarks = np.sort(np.concatenate([t * TILE_SIZE + rng.choice(TILE_SIZE, 80, replace=False) for t in tiles]))
    assert 3 < 8 * len(encode(landmarks)) / len(landmarks) < 5
