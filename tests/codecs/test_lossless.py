"""The lossless codecs of bytes, beyond what holds for all codecs (`test_contract.py`)."""

import bz2
import gzip
import sys
import zlib

import pyarrow as pa
import pytest

from sparkopt.codecs import codec_names, compress, decompress, get_codec, register
from sparkopt.errors import CorruptDataError, MissingDependencyError, ParameterError

LOSSLESS = [name for name in codec_names(lossless=True) if name != "png"]
SAMPLE = b"".join(b"row %d, value %d;" % (i, i * i % 97) for i in range(60))

every_codec = pytest.mark.parametrize("codec", LOSSLESS)


def test_the_registry_holds_all_promised_codecs():
    promised = {"zlib", "gzip", "bz2", "huffman", "rle", "lzw", "packbits", "lz4", "zstd", "snappy", "brotli"}
    assert promised == set(LOSSLESS)


@every_codec
@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 300], ids=["empty", "one byte", "all bytes"])
def test_edge_cases_and_each_of_their_truncations(codec, data):
    packed = compress(data, codec)
    assert decompress(packed, codec, max_size=len(data)) == data
    for length in range(len(packed) if len(data) < 2 else 0):
        with pytest.raises(CorruptDataError, match=codec):
            decompress(packed[:length], codec)


@every_codec
def test_the_bound_is_exact(codec):
    packed = compress(SAMPLE, codec)
    assert decompress(packed, codec, max_size=len(SAMPLE)) == SAMPLE
    with pytest.raises(CorruptDataError, match="max_size"):
        decompress(packed, codec, max_size=len(SAMPLE) - 1)
    with pytest.raises(CorruptDataError, match="max_size"):
        decompress(packed, codec, max_size=0)


@every_codec
def test_trailing_bytes_are_recognised_or_harmless(codec):
    packed = compress(SAMPLE, codec) + b"\0\1\2"
    try:
        decoded = decompress(packed, codec, max_size=10**6)
    except CorruptDataError as error:
        message = str(error)
    else:
        assert decoded == SAMPLE
        return
    assert codec in message


@every_codec
@pytest.mark.parametrize("kind", [bytearray, memoryview, pa.py_buffer])
def test_bytes_like_input(codec, kind):
    assert decompress(kind(compress(kind(SAMPLE), codec)), codec) == SAMPLE


@every_codec
def test_every_level_round_trips_and_others_are_refused(codec):
    levels = get_codec(codec).levels
    if levels is None:
        with pytest.raises(ParameterError, match=f"{codec}.*no levels"):
            compress(SAMPLE, codec, level=1)
        return
    for level in range(int(levels.low), int(levels.high) + 1):
        assert decompress(compress(SAMPLE, codec, level), codec) == SAMPLE
    with pytest.raises(ParameterError, match=f"level of codec '{codec}'"):
        compress(SAMPLE, codec, level=int(levels.high) + 1)


def test_plain_formats_are_read_by_the_standard_library_and_the_other_way_round():
    for codec in ("zlib", "huffman", "rle"):
        assert zlib.decompress(compress(SAMPLE, codec)) == SAMPLE
        assert decompress(zlib.compress(SAMPLE), codec) == SAMPLE
    assert gzip.decompress(compress(SAMPLE, "gzip")) == SAMPLE
    assert decompress(gzip.compress(SAMPLE), "gzip") == SAMPLE
    assert bz2.decompress(compress(SAMPLE, "bz2")) == SAMPLE
    assert decompress(bz2.compress(SAMPLE), "bz2") == SAMPLE


def test_the_strategies_differ_as_they_should():
    text, runs = b"abcdefgh" * 5000, b"".join(bytes([i]) * 300 for i in range(200))
    assert len(compress(text, "huffman")) > 10 * len(compress(text, "zlib"))  # no matches
    assert len(compress(text, "rle")) > 10 * len(compress(text, "zlib"))  # only matches with the byte before
    assert len(compress(runs, "rle")) < len(compress(runs, "huffman")) / 5


def test_unknown_codec_and_wrong_kinds():
    with pytest.raises(ParameterError, match="codec must be one of 'zlib', 'gzip'"):
        compress(b"", "zip")
    with pytest.raises(ParameterError, match="data must be bytes-like"):
        compress("text", "zlib")
    with pytest.raises(ParameterError, match="max_size"):
        decompress(b"", "zlib", max_size=-1)
    with pytest.raises(ParameterError, match="not yet taken"):
        register(get_codec("zlib"))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(MissingDependencyError, match=r"'lzw' needs imagecodecs.*sparkopt's extra 'codecs'"):
        compress(b"x", "lzw")
