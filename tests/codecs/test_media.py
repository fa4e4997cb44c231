"""Images and sound: quality, bounds and damage."""

import io
import sys
import wave

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_sample_images

from sparkopt.codecs import Audio, codec_names, compress, decompress
from sparkopt.errors import CorruptDataError, MissingDependencyError, ParameterError

PHOTO = np.ascontiguousarray(load_sample_images().images[0][100:164, 200:280])
RATE = 22050
SECONDS = np.arange(RATE // 2) / RATE
SOUND = Audio(np.stack([0.5 * np.sin(2 * np.pi * 440 * SECONDS), 0.3 * np.sin(2 * np.pi * 330 * SECONDS)], 1), RATE)
DATA = {"png": PHOTO, "jpeg": PHOTO, "webp": PHOTO, "mp3": SOUND}

every_codec = pytest.mark.parametrize("codec", DATA)
every_image = pytest.mark.parametrize("codec", ["png", "jpeg", "webp"])
quick = settings(max_examples=40, deadline=None)


def snr(original, decoded):
    """Signal-to-noise ratio in dB."""
    original, decoded = np.asarray(original, float), np.asarray(decoded, float)
    return 10 * np.log10(np.sum(original**2) / np.sum((original - decoded) ** 2))


def test_the_registry_knows_which_are_lossy():
    assert set(codec_names(lossless=False)) == {"jpeg", "webp", "mp3"}
    assert "png" in codec_names(lossless=True)


@quick
@given(image=st.sampled_from([1, 3, 4]).flatmap(lambda c: arrays(np.uint8, (5, 7, c))), level=st.integers(0, 9))
def test_png_is_exact(image, level):
    np.testing.assert_array_equal(decompress(compress(image, "png", level), "png"), image)


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_lossy_images_are_close_and_better_with_quality(codec):
    fine, coarse = (compress(PHOTO, codec, level) for level in (95, 10))
    assert snr(PHOTO, decompress(fine, codec)) > 24 > 18 > snr(PHOTO, decompress(coarse, codec)) > 10
    assert len(coarse) < len(fine) < PHOTO.nbytes / 2


@every_image
def test_colours_keep_their_order(codec):
    red = np.zeros((16, 16, 3), np.uint8)
    red[:, :, 0] = 200
    decoded = decompress(compress(red, codec), codec)
    assert decoded[:, :, 0].min() > 150 > 50 > decoded[:, :, 2].max()


@every_image
def test_any_other_program_reads_the_file(codec):
    theirs = cv2.imdecode(np.frombuffer(compress(PHOTO, codec), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(theirs[:, :, ::-1], decompress(compress(PHOTO, codec), codec))


@every_image
@pytest.mark.parametrize("shape", [(1, 1), (1, 33), (40, 3)])
def test_odd_sizes(codec, shape):
    image = np.full((*shape, 3), 90, np.uint8)
    decoded = decompress(compress(image, codec), codec)
    assert decoded.shape == image.shape
    assert np.abs(decoded.astype(int) - 90).max() < 8


@pytest.mark.parametrize(("codec", "channels"), [("png", 1), ("png", 4), ("jpeg", 1), ("webp", 4)])
def test_channels_are_kept(codec, channels):
    image = np.repeat(PHOTO[:, :, :1], channels, axis=2)
    assert decompress(compress(image, codec), codec).shape == image.shape


@every_image
@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 2), np.uint8)],
)
def test_what_is_no_image_is_refused(codec, image):
    with pytest.raises(ParameterError, match=codec):
        compress(image, codec)


def test_sound_is_close_and_better_with_quality():
    fine, coarse = (compress(SOUND, "mp3", level) for level in (9, 0))
    decoded = decompress(fine, "mp3")
    assert decoded.sample_rate == RATE
    assert decoded.samples.shape == SOUND.samples.shape
    inside = slice(2000, -2000)  # away from the edges, where the codec rings
    assert snr(SOUND.samples[inside], decoded.samples[inside]) > 20
    assert len(coarse) < len(fine) < SOUND.samples.size * 2 / 2


@pytest.mark.parametrize("frames", [1, 100, 1152])
def test_short_sound_keeps_its_length(frames):
    sound = Audio(SOUND.samples[:frames], RATE)
    assert decompress(compress(sound, "mp3"), "mp3").samples.shape == (frames, 2)


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (SOUND.samples, "Audio"),
        (Audio(SOUND.samples[:, 0], RATE), "samples"),
        (Audio(np.zeros((0, 1)), RATE), "samples"),
        (Audio(np.full((9, 1), np.nan), RATE), "finite"),
        (Audio(SOUND.samples, 12345), "sample_rate"),
    ],
)
def test_what_is_no_sound_is_refused(sound, message):
    with pytest.raises(ParameterError, match=message):
        compress(sound, "mp3")


def test_other_formats_of_sound_are_refused():
    file = io.BytesIO()
    with wave.open(file, "wb") as sink:
        sink.setnchannels(1)
        sink.setsampwidth(2)
        sink.setframerate(RATE)
        sink.writeframes(bytes(1000))
    with pytest.raises(CorruptDataError, match=r"mp3.*WAV"):
        decompress(file.getvalue(), "mp3")


@every_codec
def test_the_size_is_bounded(codec):
    packed = compress(DATA[codec], codec)
    with pytest.raises(CorruptDataError, match=f"{codec} data decode to more than max_size = 999"):
        decompress(packed, codec, max_size=999)


def test_a_header_that_lies_about_its_size_is_refused_before_decoding():
    packed = bytearray(compress(PHOTO, "png"))
    packed[16:24] = b"\x7f\xff\xff\xff" * 2
    with pytest.raises(CorruptDataError, match="max_size"):
        decompress(bytes(packed), "png")


@every_codec
def test_half_a_file_is_recognised(codec):
    packed = compress(DATA[codec], codec)
    with pytest.raises(CorruptDataError, match=codec):
        decompress(packed[: len(packed) // 2], codec)


@pytest.mark.parametrize(("codec", "module", "extra"), [("png", "cv2", "images"), ("mp3", "soundfile", "codecs")])
def test_a_missing_package_is_named(monkeypatch, codec, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"{codec}.*extra '{extra}'"):
        compress(DATA[codec], codec)
