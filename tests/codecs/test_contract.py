"""What holds for every codec, whatever it encodes: round trips within bounds, and damage as one clear error."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkopt.codecs import GRADIENT_CODECS, codec_names
from sparkopt.errors import CorruptDataError
from tests.codecs.members import BYTE, MEMBERS, MOST, Member
from tests.tiers import needs

FIRST = {one.name: one for one in reversed(MEMBERS)}
every_codec = pytest.mark.parametrize("member", MEMBERS, ids=[f"{one.name}-{n}" for n, one in enumerate(MEMBERS)])
every_name = pytest.mark.parametrize("member", FIRST.values(), ids=FIRST)
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

MARGIN = 256 << 20
"""Address space that decoding damaged data may take: a library's buffers and threads, and no size that they claim."""


@contextmanager
def little_memory() -> Iterator[None]:
    """Let this process grow by no more than ``MARGIN``."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MARGIN, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_the_table_holds_all_codecs():
    assert {one.name for one in MEMBERS} == {*codec_names(), *GRADIENT_CODECS, "sparse"}


@every_codec
@quick
@given(data=st.data())
def test_round_trip(member: Member, data):
    value = data.draw(member.values)
    payload = member.encode(value)
    assert isinstance(payload, bytes)
    assert member.same(value, member.decode(payload))


@every_codec
def test_the_least_value(member: Member):
    assert member.same(member.least, member.decode(member.encode(member.least)))


@every_name
@pytest.mark.parametrize("megabytes", [10, pytest.param(100, marks=needs("minutes"))])
def test_megabytes_of_one_byte(member: Member, megabytes):
    data = bytes([BYTE]) * (megabytes * 1_000_000)
    value = member.of_bytes(data)
    payload = member.encode(value)
    assert len(payload) < len(data) / LEAST.get(member.name, 7)
    assert member.same(value, member.decode(payload, 1 << 30))
    if member.name in codec_names():  # a gradient has the size that its payload says
        with (
            little_memory(),
            pytest.raises(CorruptDataError, match=f"{member.name} data decode to more than max_size"),
        ):
            member.decode(payload)


LEAST = {"none": 0.99, "sparse": 0.99, "fp16": 3.99, "bf16": 3.99}
"""Of those that do not look for repetition; a Huffman code needs at least one bit a byte."""


@every_codec
def test_truncation_at_every_length(member: Member):
    payload = member.encode(member.sample)
    with little_memory():
        for length in range(len(payload)):
            decoded = _decoded(member, payload[:length])
            assert decoded is None or not member.is_exact
            assert decoded is None or member.nbytes(decoded) <= member.nbytes(member.decode(payload))


@every_codec
@quick
@given(position=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_an_altered_byte(member: Member, position, flip):
    payload = bytearray(member.encode(member.sample))
    payload[position % len(payload)] ^= flip
    _decoded_in_bounds(member, bytes(payload))


@every_codec
@quick
@given(keep=st.integers(0, 60), data=st.binary(max_size=400))
def test_random_bytes(member: Member, keep, data):
    _decoded_in_bounds(member, data)
    _decoded_in_bounds(member, member.encode(member.sample)[:keep] + data)


def _decoded_in_bounds(member: Member, payload: bytes) -> None:
    with little_memory():
        decoded = _decoded(member, payload)
    if decoded is not None:
        assert member.nbytes(decoded) <= MOST
        if member.is_exact:  # what a flag of the format may say in two ways is still the same data
            assert member.same(member.sample, decoded) or member.encode(decoded) == payload
        if member.name in GRADIENT_CODECS:
            assert np.isfinite(decoded).all()


def _decoded(member: Member, payload: bytes):
    """Return what comes out, or None where the error names the codec."""
    try:
        return member.decode(payload)
    except CorruptDataError as error:
        assert member.name in str(error)  # noqa: PT017
        return None
