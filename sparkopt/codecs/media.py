"""Codecs of images and sound: adapters on OpenCV and libsndfile.

png is lossless; jpeg, webp and mp3 are lossy. The files are standard ones that other programs read.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from sparkopt.codecs.base import MAX_SIZE, BytesCodec, too_large
from sparkopt.errors import CorruptImageError, MissingDependencyError, ParameterError
from sparkopt.io.image_checks import decodable
from sparkopt.io.image_header import read_header
from sparkopt.typing import Array
from sparkopt.validation import Interval, OneOf, check
from sparkopt.values import dataclass

__all__ = ["MEDIA", "Audio", "Image", "Mp3"]

_ANY_SIZE = 2**64  # the codec itself checks a limit on bytes


@dataclass(frozen=True, eq=False)
class Audio:
    """Sound, as `compress` takes it for mp3 and `decompress` returns it.

    Parameters
    ----------
    samples : ndarray of shape (frames, channels), float
        Amplitudes in [-1, 1].
    sample_rate : int
        Frames per second, in Hz.
    """

    samples: Array
    sample_rate: int


class Image(BytesCodec):
    """A file format of images, uint8 of shape (height, width, channels) in RGB or RGBA order.

    Parameters
    ----------
    name : {"png", "jpeg", "webp"}
        Name in the registry and in OpenCV.
    channels : tuple of int
        Numbers of channels that the format keeps.
    levels : Interval
        Compression level of png, quality of the others.
    default_level : int
        The level used where none is given.
    lossless : bool, default False
        Whether decoding returns exactly the pixels that were encoded.
    """

    def __init__(
        self, name: str, channels: tuple[int, ...], levels: Interval, default_level: int, *, lossless: bool = False
    ) -> None:
        self.name = name
        self.lossless = lossless
        self.levels = levels
        self.default_level = default_level
        self._channels = channels

    def encode(self, data: Any, level: int | None = None) -> bytes:
        """Encode an image."""
        image = np.asarray(data)
        if image.dtype != np.uint8 or image.ndim != 3 or not image.size:
            raise ParameterError(
                f"data must be an image, uint8 of shape (height, width, channels), for the codec {self.name!r}. "
                f"Got {image.dtype} of shape {image.shape} instead."
            )
        check(f"channels for the codec {self.name!r}", image.shape[2], OneOf(self._channels))
        cv2 = _opencv(self.name)
        setting = {
            "png": cv2.IMWRITE_PNG_COMPRESSION,
            "jpeg": cv2.IMWRITE_JPEG_QUALITY,
            "webp": cv2.IMWRITE_WEBP_QUALITY,
        }
        try:
            is_done, encoded = cv2.imencode(f".{self.name}", _swapped(image), [setting[self.name], self.level(level)])
        except cv2.error:
            is_done = False
        if not is_done:
            raise ParameterError(f"The codec {self.name!r} cannot hold an image of shape {image.shape}.")
        return bytes(encoded)

    def decode(self, data: bytes, max_size: int = MAX_SIZE) -> Array:
        """Decode an image."""
        try:  # the size is read first, since a decoder allocates what the header claims
            header = read_header(data, max_pixels=_ANY_SIZE)
            encoded = decodable(data, header)
        except CorruptImageError as error:
            raise self.corrupt(error) from error
        if header.format != self.name:
            raise self.corrupt(f"it is {header.format}")
        height, width = header.height, header.width
        if height * width * max(self._channels) > max_size:
            raise too_large(self.name, max_size)
        cv2 = _opencv(self.name)
        try:
            image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise self.corrupt("OpenCV refuses it") from error
        if image is None:
            raise self.corrupt("OpenCV cannot decode it")
        image = image.reshape(*image.shape[:2], -1)
        if image.dtype != np.uint8 or image.shape[:2] != (height, width) or image.shape[2] not in self._channels:
            raise self.corrupt(f"pixels are {image.dtype} of shape {image.shape}")
        return _swapped(image)


def _swapped(image: Array) -> Array:
    """Convert RGB to OpenCV's BGR or back; alpha stays last."""
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[image.shape[2]]
    return np.ascontiguousarray(image[:, :, order])


class Mp3(BytesCodec):
    """MPEG-1/2 layer III, for `Audio` with one or two channels. The level is a quality, from 0 to 9."""

    name = "mp3"
    lossless = False
    levels = Interval(0, 9, whole=True)
    default_level = 5
    _BLOCK = 2**16

    def encode(self, data: Any, level: int | None = None) -> bytes:
        """Encode sound."""
        if not isinstance(data, Audio):
            raise ParameterError(f"data must be an Audio for the codec 'mp3'. Got {type(data).__name__} instead.")
        samples = np.asarray(data.samples)
        if samples.ndim != 2 or samples.shape[1] not in (1, 2) or not len(samples) or samples.dtype.kind != "f":
            raise ParameterError(
                "samples must be floats of shape (frames, 1 or 2) with at least one frame. "
                f"Got {samples.dtype} of shape {samples.shape} instead."
            )
        if not np.isfinite(samples).all():
            raise ParameterError("samples must be finite. Got NaN or infinity instead.")
        check("sample_rate", data.sample_rate, OneOf(_MP3_RATES))
        chosen = self.level(level)
        assert chosen is not None  # noqa: S101  # there is a default
        file = io.BytesIO()
        with _soundfile().SoundFile(
            file, "w", data.sample_rate, samples.shape[1], format="MP3", subtype="MPEG_LAYER_III",
            compression_level=(9 - chosen) / 10, bitrate_mode="VARIABLE",
        ) as sink:  # fmt: skip
            sink.write(samples)
        return file.getvalue()

    def decode(self, data: bytes, max_size: int = MAX_SIZE) -> Audio:
        """Decode sound, as float32."""
        library = _soundfile()
        try:
            with library.SoundFile(io.BytesIO(data)) as source:
                if source.format != "MP3":
                    raise self.corrupt(f"it is {source.format}")
                if source.frames * source.channels * 4 > max_size:
                    raise too_large(self.name, max_size)
                blocks, size = [np.zeros((0, source.channels), np.float32)], 0
                while len(block := source.read(self._BLOCK, dtype="float32", always_2d=True)):
                    blocks.append(block)  # by blocks, since a damaged header may claim any number of frames
                    size += block.nbytes
                    if size > max_size:
                        raise too_large(self.name, max_size)
                samples, expected, rate = np.concatenate(blocks), source.frames, source.samplerate
        except library.SoundFileError as error:
            raise self.corrupt("libsndfile cannot read it") from error
        if len(samples) != expected:
            raise self.corrupt(f"it holds {len(samples)} of {expected} frames")
        return Audio(samples, rate)


_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def _opencv(codec: str) -> Any:
    try:
        import cv2
    except ImportError:
        raise MissingDependencyError.of(f"The codec {codec!r}", "opencv-python-headless", "images") from None
    return cv2


def _soundfile() -> Any:
    try:
        import soundfile  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise MissingDependencyError.of("The codec 'mp3'", "soundfile", "codecs") from None
    except OSError as error:  # its wheel for any platform has no library in it
        raise MissingDependencyError(
            f"The codec 'mp3' needs the library libsndfile, which soundfile does not find: {error}. Install "
            "libsndfile1, or the wheel of soundfile for this platform."
        ) from None
    return soundfile


MEDIA: tuple[BytesCodec, ...] = (
    Image("png", (1, 3, 4), Interval(0, 9, whole=True), 3, lossless=True),
    Image("jpeg", (1, 3), Interval(0, 100, whole=True), 95),
    Image("webp", (3, 4), Interval(1, 100, whole=True), 80),
    Mp3(),
)
"""The members of the registry that encode images and sound."""
