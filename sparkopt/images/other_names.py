"""Names in torchvision and albumentations of what is here, for those who look for them."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["MISSING", "OTHER_NAMES", "OTHER_PARAMETERS", "OTHER_VALUES", "our_parameter"]

_TURNS = "OneOf([Rotate(0), Rotate(90, expand=True), Rotate(180), Rotate(270, expand=True)])"
OTHER_NAMES = {
    "BboxParams": "Sample(image, boxes=…, labels=…, min_visibility=…)",
    "Blur": "GaussianBlur(sigma), MedianBlur(kernel_size)",
    "CLAHE": "Clahe",
    "CoarseDropout": "Cutout, RandomErasing",
    "D4": f"RandomHorizontalFlip(), {_TURNS}",
    "ElasticTransform": "ElasticDistortion",
    "GaussNoise": "GaussianNoise",
    "HueSaturationValue": "ColorJitter(hue=…, saturation=…, brightness=…)",
    "ISONoise": "GaussianNoise",
    "ImageCompression": "JpegNoise",
    "ImageFolder": "read(path): its column label is the folder's name",
    "JPEG": "JpegNoise",
    "KeypointParams": "Sample(image, keypoints=…)",
    "Lambda": "a class of your own, an ImageTransform with apply(image, rng)",
    "LetterBox": "Letterbox",
    "LongestMaxSize": "ResizeLongerSide",
    "Mosaic": "MixUp, CutMix: nothing here joins four images and their boxes",
    "PadIfNeeded": "Letterbox, Pad",
    "RandomAdjustSharpness": "Sharpness(factor, p=0.5)",
    "RandomAutocontrast": "AutoContrast(p=0.5)",
    "RandomBrightnessContrast": "ColorJitter",
    "RandomEqualize": "Equalize(p=0.5)",
    "RandomGamma": "Gamma",
    "RandomGrayscale": "Grayscale(channels=3, p=0.1)",
    "RandomIoUCrop": "RandomResizedCrop(height, width), with Sample(image, boxes=…, min_visibility=…)",
    "RandomInvert": "Invert(p=0.5)",
    "RandomPosterize": "Posterize(bits, p=0.5)",
    "RandomRotate90": _TURNS,
    "RandomSolarize": "Solarize(threshold, p=0.5)",
    "RandomZoomOut": "RandomAffine(scale=(0.25, 1), translate=(0.3, 0.3), fill=…)",
    "Sequential": "RandomApply(transforms, p=1)",
    "ShiftScaleRotate": "RandomAffine",
    "SmallestMaxSize": "ResizeShorterSide",
    "SomeOf": "RandomOrder, OneOf",
    "TenCrop": "FiveCrop",
    "ToDtype": "Rescale(1 / 255)",
    "ToFloat": "Rescale(1 / 255)",
    "ToGray": "Grayscale(channels=3)",
    "ToImage": "Decode(): arrays are images as they are",
    "ToTensor": "Rescale(1 / 255), ToCHW",
    "ToTensorV2": "ToCHW",
    "Transpose": "Rotate(90, expand=True), VerticalFlip()",
    "TrivialAugmentWide": "TrivialAugment",
}
"""By the name there, what to take here."""

_AREAS = "interpolation: whichever it is, an image that becomes smaller is averaged over areas"
OTHER_PARAMETERS = {
    "Affine.translate_px": ("Translate(x, y)",),
    "Compose.bbox_params": ("Sample(image, boxes=…)",),
    "Compose.keypoint_params": ("Sample(image, keypoints=…)",),
    "Compose.p": ("RandomApply(transforms, p=…)",),
    "Compose.seed": ("a generator of NumPy where it is called: pipeline(image, rng)",),
    "CenterCrop.fill": ("Pad(top, right, bottom, left, fill=…) before it",),
    "CenterCrop.pad_if_needed": ("Pad(top, right, bottom, left) before it",),
    "Crop.fill": ("Pad(top, right, bottom, left, fill=…) before it",),
    "Crop.pad_if_needed": ("Pad(top, right, bottom, left) before it",),
    "Crop.x_max": ("width, which is x_max - x_min",),
    "Crop.x_min": ("left",),
    "Crop.y_max": ("height, which is y_max - y_min",),
    "Crop.y_min": ("top",),
    "CutMix.num_classes": ("one_hot(labels, classes) for the targets",),
    "MixUp.num_classes": ("one_hot(labels, classes) for the targets",),
    "Normalize.max_pixel_value": ("Rescale(1 / 255) before it",),
    "Pad.min_height": ("Letterbox(height, width)",),
    "Pad.min_width": ("Letterbox(height, width)",),
    "Pad.padding": ("top, right, bottom, left, or Pad(4) for all four",),
    "Perspective.scale": ("RandomPerspective(distortion)",),
    "RandomAffine.side_range": ("scale, which is 1 / side_range",),
    "RandomCrop.fill": ("PaddedRandomCrop(height, width, padding, fill=…)",),
    "RandomCrop.pad_if_needed": ("PaddedRandomCrop(height, width, padding=0)",),
    "RandomCrop.padding": ("PaddedRandomCrop(height, width, padding)",),
    "RandomCrop.padding_mode": ("PaddedRandomCrop(height, width, padding, mode)",),
    "RandomErasing.num_holes_range": ("Cutout(length, holes)",),
    "Resize.max_size": ("ResizeLongerSide(length)",),
    "Rotate.degrees": ("RandomRotation(degrees)",),
    "Rotate.limit": ("RandomRotation(degrees)",),
    "always_apply": ("p=1",),
    "angle": ("degrees",),
    "angle_range": ("angle",),
    "antialias": (_AREAS,),
    "area_for_downscale": (_AREAS,),
    "blur_limit": ("kernel_size", "length"),
    "border_mode": ("mode", "fill"),
    "brightness_limit": ("brightness",),
    "contrast_limit": ("contrast",),
    "cval": ("fill",),
    "distort_limit": ("limit",),
    "distortion_scale": ("distortion",),
    "fill_mask": ("Sample(image, mask, mask_fill=…)",),
    "fill_value": ("fill",),
    "gamma_limit": ("gamma",),
    "hole_height_range": ("length", "scale"),
    "hole_width_range": ("length", "scale"),
    "hue_shift_limit": ("hue",),
    "intensity": ("std",),
    "interpolation_pair": ("interpolation",),
    "max_size": ("length",),
    "max_size_hw": ("Letterbox(height, width)",),
    "max_value": ("scale, which is 1 / max_value",),
    "min_height": ("height",),
    "min_width": ("width",),
    "n_holes": ("holes",),
    "num_bits": ("bits",),
    "num_holes_range": ("holes",),
    "num_magnitude_bins": ("levels",),
    "num_ops": ("operations",),
    "num_output_channels": ("channels",),
    "num_steps": ("cells",),
    "padding_mode": ("mode",),
    "quality_range": ("quality",),
    "resample": ("interpolation",),
    "rotate": ("angle", "degrees"),
    "rotate_limit": ("degrees",),
    "sat_shift_limit": ("saturation",),
    "scale_limit": ("scale",),
    "scale_range": ("factor, which is 1 / scale",),
    "sharpness_factor": ("factor",),
    "shift_limit": ("translate",),
    "shift_limit_x": ("translate",),
    "shift_limit_y": ("translate",),
    "sigma": ("std",),
    "sigma_limit": ("sigma",),
    "size": ("height, width", "length"),
    "std_range": ("std",),
    "threshold_range": ("threshold",),
    "tile_grid_size": ("tiles",),
    "translate_percent": ("translate",),
    "val_shift_limit": ("brightness",),
    "value": ("fill",),
    "var_limit": ("std",),
}
"""By a parameter's name there, or by transform and name, what to take here: the first that the transform has."""

MISSING = {
    "Resize": "Resize(224, 224) is a square, and ResizeShorterSide(224) keeps the proportions",
    "GaussianBlur": "the standard deviation says how far, and kernel_size only where the Gaussian ends",
    "Normalize": "mean and std are one number, or one for each channel",
}
"""What to give a transform that lacks a parameter."""

OTHER_VALUES = {
    "bicubic": "cubic",
    "bilinear": "linear",
    "box": "area",
    "grayscale": "gray",
    "grey": "gray",
    "jpg": "jpeg",
    "l": "gray",
    "lanczos4": "lanczos",
    "nearest-exact": "nearest",
    "reflect101": "reflect",
    "replicate": "edge",
}
"""By the value there, in lower case, what to write here."""


def our_parameter(transform: str, other: str, parameters: Collection[str]) -> str | None:
    """Return what to take here instead of a parameter that a transform does not have; None where nothing is known.

    Examples
    --------
    >>> our_parameter("Resize", "size", ["height", "width"])
    'height, width'
    """
    for answer in OTHER_PARAMETERS.get(f"{transform}.{other}", OTHER_PARAMETERS.get(other, ())):
        first = answer.partition("=")[0].partition(",")[0].partition(":")[0]
        if not first.isidentifier() or first in parameters:  # another transform, or a parameter of this one
            return answer
    return None
