"""Every codec of the package in one table: bytes, images, sound and gradients, behind the same two functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparkopt.codecs import Audio, codec_names, compress, decompress, get_codec
from sparkopt.codecs.gradient import (
    GRADIENT_CODECS,
    QSGD,
    ErrorFeedback,
    GradientCodec,
    PowerSGD,
    RandomK,
    Sparse,
    TopK,
)

BYTE = 0x3F
"""Eight of them are the float64 4.8e-4, four the float32 0.75."""
MOST = 1 << 20
"""Most bytes that may come out of damaged data."""


@dataclass(frozen=True)
class Member:
    """One codec.

    Attributes
    ----------
    name : str
        As its errors call it.
    encode, decode : callable
        A value to bytes, and back.
    same : callable
        Whether a decoded value is what the codec promises of the first one.
    values : SearchStrategy
        What it encodes.
    sample : Any
        One such value, of some hundred encoded bytes.
    least : Any
        The smallest value there is.
    of_bytes : callable
        Bytes as a value.
    nbytes : callable
        Bytes of a decoded value.
    is_exact : bool
        Whether damage never yields other data.
    """

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[..., Any]
    same: Callable[[Any, Any], bool]
    values: st.SearchStrategy[Any]
    sample: Any
    least: Any
    of_bytes: Callable[[bytes], Any]
    nbytes: Callable[[Any], int] = len
    is_exact: bool = False


def _all() -> Iterator[Member]:
    yield from (_bytes(name) for name in codec_names(lossless=True) if name != "png")
    yield from (_image(name) for name in ("png", "jpeg", "webp"))
    yield _sound("mp3")
    yield from (_gradient(kind()) for kind in GRADIENT_CODECS.values())
    yield from (_gradient(codec) for codec in OTHERS)
    yield _sparse()
    yield from (_gradient(ErrorFeedback(kind())) for kind in GRADIENT_CODECS.values())


def _sparse() -> Member:
    """The lossless one, whose positions take two forms in addition to the dense one."""
    few = np.zeros(150)
    few[[3, 70, 149]] = [1.0, -0.0, np.inf]
    some = arrays(np.float64, st.integers(1, 300), elements=st.sampled_from([0.0] * 40 + [1.5, -0.0, 2e-308]))
    wholly = arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e6, 1e6))
    member = _gradient(Sparse())
    return replace(
        member,
        same=lambda vector, decoded: vector.tobytes() == decoded.tobytes(),
        values=st.one_of(some, wholly),
        sample=few,
    )


OTHERS = [QSGD(levels=127, bucket=7), TopK(0.3), RandomK(0.3, seed=7), PowerSGD(rank=1)]


def _bytes(name: str) -> Member:
    return Member(
        name,
        lambda value: compress(value, name),
        lambda payload, most=MOST: decompress(payload, name, most),
        lambda value, decoded: bytes(value) == decoded,
        st.one_of(st.binary(max_size=3000), _runs()),
        b"".join(b"row %d, value %d;" % (i, i * i % 97) for i in range(60)),
        b"",
        bytes,
        is_exact=True,
    )


def _runs() -> st.SearchStrategy[bytes]:
    piece = st.tuples(st.binary(min_size=1, max_size=4), st.integers(1, 5000))
    return st.lists(piece, max_size=8).map(lambda pieces: b"".join(piece * count for piece, count in pieces))


def _image(name: str) -> Member:
    rng = np.random.default_rng(0)
    steps = np.arange(24, dtype=np.uint8)
    sample = np.stack([steps[:, None] * 9 + steps, steps[:, None] + steps * 5, steps[:, None] ^ steps], axis=2)
    sample[:4] = rng.integers(0, 256, sample[:4].shape)

    def same(value: Any, decoded: Any) -> bool:
        return np.array_equal(value, decoded) if get_codec(name).lossless else value.shape == decoded.shape

    return Member(
        name,
        lambda value: compress(value, name),
        lambda payload, most=MOST: decompress(payload, name, most),
        same,
        st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(lambda size: arrays(np.uint8, (*size, 3))),
        sample,
        np.full((1, 1, 3), BYTE, np.uint8),
        lambda data: np.frombuffer(data, np.uint8)[: len(data) // 9000 * 9000].reshape(-1, 3000, 3),
        lambda image: image.nbytes,
    )


def _sound(name: str) -> Member:
    seconds = np.arange(4000) / 22050

    def of(samples: Any) -> Audio:
        return Audio(np.asarray(samples, float), 22050)

    return Member(
        name,
        lambda value: compress(value, name),
        lambda payload, most=MOST: decompress(payload, name, most),
        lambda value, decoded: value.samples.shape == decoded.samples.shape,
        arrays(np.float64, st.tuples(st.integers(1, 3000), st.just(1)), elements=st.floats(-1, 1)).map(of),
        of(0.5 * np.sin(2 * np.pi * 440 * seconds)[:, None]),
        of([[0.5]]),
        lambda data: Audio(np.frombuffer(data, np.float32)[:, None], 48000),
        lambda sound: sound.samples.nbytes,
    )


def _gradient(codec: GradientCodec) -> Member:
    def encode(vector: Any) -> bytes:
        return codec.encode(vector, codec.init(vector.size), np.random.default_rng(0))[0]

    def same(vector: Any, decoded: Any) -> bool:
        fits = decoded.shape == vector.shape and decoded.dtype == np.float64 and bool(np.isfinite(decoded).all())
        return fits and (not codec.lossless or np.array_equal(vector, decoded))

    return Member(
        codec.name,
        encode,
        lambda payload, most=MOST: codec.decode(payload),
        same,
        arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e6, 1e6, allow_subnormal=False)),
        np.linspace(-1, 1, 150),
        np.ones(1),
        lambda data: np.frombuffer(data, np.float64),
        lambda vector: vector.nbytes,
    )


MEMBERS = tuple(_all())
