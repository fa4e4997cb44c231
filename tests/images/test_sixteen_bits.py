"""Steps of tone and noise on sixteen bits: what they do to the same image of eight, in finer levels."""

import cv2
import numpy as np
import pytest

from sparkopt import images

STEPS = {
    "Brightness": images.Brightness(1.2),
    "Contrast": images.Contrast(0.6),
    "Saturation": images.Saturation(1.7),
    "Sharpness": images.Sharpness(2.5),
    "Gamma": images.Gamma(2.2),
    "Invert": images.Invert(),
    "Solarize": images.Solarize(0.6),
    "Posterize": images.Posterize(3),
    "AutoContrast": images.AutoContrast(),
    "Equalize": images.Equalize(),
    "Clahe": images.Clahe(),
    "GaussianNoise": images.GaussianNoise(0.1),
    "JpegNoise": images.JpegNoise(60),
    "MedianBlur": images.MedianBlur(7),
    "MotionBlur": images.MotionBlur(5, 30),
    "ColorJitter": images.ColorJitter(0.3, 0.3, 0.3),
    "Cutout": images.Cutout(9, 3, 0),
}


@pytest.fixture(scope="module")
def eight(photograph):
    return cv2.resize(photograph, (96, 64), interpolation=cv2.INTER_AREA)


def levels(image):
    """Values as fractions of full scale, in 255ths."""
    return image.astype(float) / (257 if image.dtype == np.uint16 else 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", STEPS)
def test_sixteen_bits_are_eight_in_finer_levels(name, channels, eight):
    image = np.dstack([eight, eight[..., :1]])[..., :channels].copy()
    wide = image.astype(np.uint16) * np.uint16(257)
    expected = STEPS[name].apply(image, np.random.default_rng(3))
    found = STEPS[name].apply(wide, np.random.default_rng(3))
    assert found.dtype == np.uint16
    assert found.shape == expected.shape
    assert np.abs(levels(found) - levels(expected)).max() <= 1.3  # steps of eight bits round twice


def test_levels_between_those_of_eight_bits_stay(eight):
    wide = (np.arange(64 * 96 * 3).reshape(64, 96, 3) * 3).astype(np.uint16)
    for step in (
        images.Brightness(1),
        images.Contrast(1),
        images.Gamma(1),
        images.ColorJitter(),
        images.Sharpness(1),
    ):
        np.testing.assert_array_equal(step.apply(wide, np.random.default_rng(0)), wide)
    np.testing.assert_array_equal(images.Invert().apply(wide, np.random.default_rng(0)), 65535 - wide)
    brighter = images.Brightness(1.5).apply(wide, np.random.default_rng(0))
    np.testing.assert_array_equal(brighter, np.minimum(np.rint(wide * 1.5), 65535))
    turned = images.functional.adjust_hue(eight.astype(np.uint16) * np.uint16(257), 0.25)
    assert np.abs(levels(turned) - levels(images.functional.adjust_hue(eight, 0.25))).mean() <= 1.5


@pytest.mark.parametrize("policy", [images.RandAugment(2, 9), images.TrivialAugment(), images.AutoAugment()], ids=str)
def test_policies_take_sixteen_bits(policy, eight):
    wide = eight.astype(np.uint16) * np.uint16(257)
    for seed in range(40):
        found = images.Compose([policy])(wide, np.random.default_rng(seed))
        expected = images.Compose([policy])(eight, np.random.default_rng(seed))
        assert found.dtype == np.uint16
        assert np.abs(levels(found) - levels(expected)).mean() <= 1.5, seed


def test_a_png_of_sixteen_bits_is_brightened(eight):
    data = cv2.imencode(".png", eight[..., ::-1].astype(np.uint16) * np.uint16(200))[1].tobytes()
    found = images.Compose([images.Decode(depth="keep"), images.Brightness(1.2)])(data)
    np.testing.assert_allclose(found, np.minimum(eight * 240.0, 65535), rtol=0, atol=1)
