"""Names of transforms in torchvision and albumentations, for those who look for them here."""

from __future__ import annotations

__all__ = ["OTHER_NAMES"]

OTHER_NAMES = {
    "CLAHE": "Clahe",
    "CoarseDropout": "Cutout, RandomErasing",
    "ElasticTransform": "ElasticDistortion",
    "GaussNoise": "GaussianNoise",
    "ISONoise": "GaussianNoise",
    "ImageCompression": "JpegNoise",
    "JPEG": "JpegNoise",
    "LetterBox": "Letterbox",
    "LongestMaxSize": "ResizeLongerSide",
    "PadIfNeeded": "Letterbox, Pad",
    "RandomAdjustSharpness": "Sharpness(factor, p=0.5)",
    "RandomAutocontrast": "AutoContrast(p=0.5)",
    "RandomBrightnessContrast": "ColorJitter",
    "RandomEqualize": "Equalize(p=0.5)",
    "RandomGamma": "Gamma",
    "RandomGrayscale": "Grayscale(channels=3, p=0.1)",
    "RandomInvert": "Invert(p=0.5)",
    "RandomPosterize": "Posterize(bits, p=0.5)",
    "RandomSolarize": "Solarize(threshold, p=0.5)",
    "Sequential": "RandomApply(transforms, p=1)",
    "ShiftScaleRotate": "RandomAffine",
    "SmallestMaxSize": "ResizeShorterSide",
    "SomeOf": "RandomOrder, OneOf",
    "TenCrop": "FiveCrop",
    "ToFloat": "Rescale(1 / 255)",
    "ToGray": "Grayscale(channels=3)",
    "ToTensor": "Rescale(1 / 255), ToCHW",
    "ToTensorV2": "ToCHW",
    "TrivialAugmentWide": "TrivialAugment",
}
"""By the name there, what to take here."""
