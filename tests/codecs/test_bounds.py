"""A payload decides nothing about memory: whatever it claims, decoding it takes what the fit's own size takes."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from sparkopt import codecs
from sparkopt.codecs.gradient import GRADIENT_CODECS, Sparse, gradient_codec
from sparkopt.communication.encoding import EncodedGradient
from sparkopt.errors import CorruptDataError, IncompatibleError

SIZE = 1000
MOST = 64 * 8 * SIZE
"""Bytes: a few vectors of the fit's size, and what Python itself takes."""
MEMBERS = {**{name: gradient_codec(name) for name in GRADIENT_CODECS}, "sparse": Sparse()}


def payload_of(codec):
    vector = np.random.default_rng(1).normal(size=SIZE)
    state = codec.init(SIZE)
    if codec.shared:
        state = codec.agree(state, codec.propose(vector, state))
    return codec.encode(vector, state, np.random.default_rng(0))[0]


def added(codec, payload):
    """Add a payload as a fit does; return the bytes at the peak, and the error or None."""
    gradient = EncodedGradient(codec, (1, SIZE), ((payload,),))
    tracemalloc.start()
    try:
        gradient.decoded()
    except (CorruptDataError, IncompatibleError) as error:
        return tracemalloc.get_traced_memory()[1], error
    else:
        return tracemalloc.get_traced_memory()[1], None
    finally:
        tracemalloc.stop()


def words(payload):
    """Yield the payload with numbers of any size in the place of each 4 and 8 bytes of its beginning."""
    for kind, values in (("<I", (0, SIZE + 1, 2**24, 2**31, 2**32 - 1)), ("<Q", (2**32, 2**40, 2**63, 2**64 - 1))):
        for value in values:
            for start in range(min(24, len(payload) - struct.calcsize(kind) + 1)):
                crafted = bytearray(payload)
                crafted[start : start + struct.calcsize(kind)] = struct.pack(kind, value)
                yield bytes(crafted)


@pytest.mark.parametrize("name", MEMBERS)
def test_crafted_payloads_take_no_more_memory_than_the_fit(name):
    codec = MEMBERS[name]
    payload = payload_of(codec)
    assert added(codec, payload)[1] is None
    crafted = [*words(payload), b"", payload[:3], payload + payload, bytes(20), b"\xff" * 20, b"\xff" * 262_144]
    for each in crafted:
        peak, _ = added(codec, each)
        assert peak < MOST + 8 * len(each), (name, each[:24])


def test_twenty_bytes_do_not_ask_for_terabytes():
    size, count = 2**40, 0
    peak, error = added(Sparse(), struct.pack("<QQI", size, count, zlib.crc32(struct.pack("<QQ", size, count))))
    assert isinstance(error, CorruptDataError)
    assert f"{size} entries instead of {SIZE}" in str(error)
    assert peak < MOST


def test_a_low_rank_of_another_size_is_not_multiplied():
    """262 kB are the factors of a matrix of 2 GiB."""
    side = 2**14
    crafted = struct.pack("<I", side * side - 1) + np.ones(4 * side, "<f4").tobytes()
    peak, error = added(codecs.PowerSGD(), crafted)
    assert isinstance(error, CorruptDataError)
    assert "entries instead of 1000" in str(error)
    assert peak < MOST


def test_sums_of_int8_beyond_32_bits_are_refused():
    codec = codecs.Int8()
    state = codec.agree(codec.init(SIZE), 1.0)
    payload = codec.encode(np.full(SIZE, 1.0), state, np.random.default_rng(0))[0]
    for _ in range(20):
        payload = codec.add(payload, payload)
    total = payload
    for _ in range(2**31 // 127 // 2**20 - 1):
        total = codec.add(total, payload)
    np.testing.assert_allclose(codec.decode(total), 2**31 // 127 // 2**20 * 2**20, rtol=1e-6)
    with pytest.raises(IncompatibleError, match="their sum has 32 bits"):
        codec.add(total, payload)
