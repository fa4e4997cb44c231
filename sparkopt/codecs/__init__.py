"""Compression, one vocabulary: bytes, columns, images, sound and gradients."""

from sparkopt.codecs.base import MAX_SIZE, BytesCodec
from sparkopt.codecs.registry import codec_names, compress, decompress, get_codec, register

__all__ = ["MAX_SIZE", "BytesCodec", "codec_names", "compress", "decompress", "get_codec", "register"]
