"""From the bytes of an image file to pixels, and back."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from sparkopt.errors import CorruptImageError, DataError, ParameterError
from sparkopt.images.conversion import convert_color
from sparkopt.images.formats import CODED, OTHERS, decode_by_library, decode_tiff, has_pillow
from sparkopt.images.opencv import cv2
from sparkopt.images.plain_jpeg import decode_plain_jpeg
from sparkopt.images.plain_png import COLORS as COLORED
from sparkopt.images.plain_png import GREY, PALETTE, decode_plain_png
from sparkopt.images.resizing import with_channels
from sparkopt.images.tiff import orient
from sparkopt.io.image_checks import decodable
from sparkopt.io.image_frames import count_frames
from sparkopt.io.image_header import MAX_PIXELS, Header, read_header
from sparkopt.io.tiff_samples import tiff_layout, tiff_planes
from sparkopt.typing import Array
from sparkopt.validation import Interval, OneOf, check

__all__ = [
    "COLORS",
    "DEPTHS",
    "ENCODINGS",
    "decode",
    "decode_frames",
    "decode_mask",
    "decode_stored",
    "encode",
    "orient",
]

COLORS = ("rgb", "gray", "rgba", "bgr")
DEPTHS = ("8", "keep")
_COLORS, _DEPTHS, _REDUCTIONS = OneOf(COLORS), OneOf(DEPTHS), OneOf((1, 2, 4, 8))
_PIXELS, _FRAMES = Interval(1, None, whole=True), Interval(None, None, whole=True)
ENCODINGS = {
    "jpeg": (".jpg", cv2.IMWRITE_JPEG_QUALITY),
    "png": (".png", None),
    "webp": (".webp", cv2.IMWRITE_WEBP_QUALITY),
}


def decode(
    data: bytes,
    color: str = "rgb",
    *,
    max_pixels: int = MAX_PIXELS,
    reduction: int = 1,
    depth: str = "8",
    frame: int = 0,
) -> Array:
    """Decode JPEG, PNG, WebP, GIF, BMP or TIFF and apply its EXIF orientation.

    AVIF, HEIC, JPEG 2000, JPEG XL, BigTIFF and DICOM are decoded where a library for them is installed: Pillow,
    imagecodecs, pillow-heif or pydicom. Without one, the error has the format's name.

    Samples of more bits are scaled to eight, palettes expanded, CMYK converted, and transparency dropped unless
    ``color`` is "rgba".

    Parameters
    ----------
    data : bytes
        The encoded image.
    color : {"rgb", "gray", "rgba", "bgr"}, default "rgb"
        Channels of the result.
    max_pixels : int, default 2**26
        Images with more pixels are refused before anything is allocated.
    reduction : {1, 2, 4, 8}, default 1
        Decode a JPEG at 1/reduction of its size (rounded up), which is much faster than decoding it whole.
    depth : {"8", "keep"}, default "8"
        Whether samples become bytes, or keep the file's values: uint8, uint16, or float32 for all others.
    frame : int, default 0
        Which frame of an animated GIF or WebP; -1 is the last. Of other formats there is the first only.

    Returns
    -------
    ndarray of uint8 (or of the kept type), shape (height, width, channels)

    Raises
    ------
    CorruptImageError
        If the data are not a complete image within the limit; the message begins with the reason.
    """
    check("max_pixels", max_pixels, _PIXELS)
    check("frame", frame, _FRAMES)
    if isinstance(data, bytearray | memoryview):
        data = bytes(data)
    header = read_header(data, max_pixels)
    if frame:
        return orient(_frame(data, header, frame, color, max_pixels), header.orientation)
    return orient(decode_stored(data, header, color, reduction=reduction, depth=depth), header.orientation)


def _frame(data: bytes, header: Header, frame: int, color: str, max_pixels: int) -> Array:
    """Return one frame, whose number counts from the end where it is negative."""
    check("color", color, _COLORS)
    count = count_frames(data, header.format)
    place = frame if frame >= 0 else count + frame
    if not 0 <= place < count:
        raise CorruptImageError(f"unsupported: there is no frame {frame} in a {header.format.upper()} of {count}")
    if count == 1:
        return decode_stored(data, header, color)
    flags = cv2.IMREAD_UNCHANGED if color == "rgba" else cv2.IMREAD_COLOR
    image = decode_frames(data, header, place + 1, flags, max_pixels=max_pixels)[-1]
    return _unchanged_to_rgba(image) if color == "rgba" else _converted(image, "bgr", color)


def decode_frames(
    data: bytes, header: Header, count: int, flags: int = cv2.IMREAD_UNCHANGED, *, max_pixels: int = MAX_PIXELS
) -> Sequence[Array]:
    """Decode the first frames of a GIF or WebP, each of them whole, as OpenCV's flags say.

    A frame is drawn over those before it, and OpenCV 5 counts wrongly where it begins later: so all are decoded.

    Raises
    ------
    CorruptImageError
        If one of them cannot be decoded, or together they have more than ``max_pixels``.
    """
    if count * header.height * header.width > max_pixels:
        raise CorruptImageError(
            f"too large: {count} frames of {header.height} x {header.width} pixels exceed the limit of {max_pixels} "
            "pixels"
        )
    try:
        _, images = cv2.imdecodemulti(np.frombuffer(data, np.uint8), flags, None, (0, count))
    except cv2.error as error:
        raise CorruptImageError(f"corrupt: OpenCV cannot decode the {header.format.upper()}: {error.err}") from error
    if len(images) != count or any(image.shape[:2] != (header.height, header.width) for image in images):
        raise CorruptImageError(f"corrupt: OpenCV cannot decode {count} frames of the {header.format.upper()}")
    found: Sequence[Array] = images
    return found


def decode_mask(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Array:
    """Decode an image of labels: its levels as they are stored, or the indices of a palette.

    Parameters
    ----------
    data : bytes
        A PNG or TIFF of one channel, or a PNG with a palette.
    max_pixels : int, default 2**26
        Images with more pixels are refused before anything is allocated.

    Returns
    -------
    ndarray of uint8 or uint16, shape (height, width)

    Raises
    ------
    CorruptImageError
        If the data are not a complete image of one channel.
    """
    if isinstance(data, bytearray | memoryview):
        data = bytes(data)
    labels = decode_plain_png(data, max_pixels, (GREY, PALETTE), (b"eXIf",)) if isinstance(data, bytes) else None
    if labels is not None:
        return labels[..., 0]
    header, levels = read_header(data, max_pixels), 255
    if header.format == "png":
        if data[25] == PALETTE:
            data = _without_palette(data)
        levels = (1 << min(header.bits, 8)) - 1
    data = decodable(data, header)
    is_foreign = header.format in ("tiff", "bigtiff") and tiff_layout(data).is_foreign
    if is_foreign:
        image = decode_tiff(data, header, "keep")
        image = image[..., 0] if image.shape[2] == 1 else image
    else:
        image = _pixels(data, header, cv2.IMREAD_UNCHANGED, 1)
    if image.ndim != 2:
        raise CorruptImageError(f"unsupported: a mask of {image.shape[2]} channels; labels have one, or a palette")
    return orient(image if levels == 255 else image // (255 // levels), header.orientation)


def _without_palette(data: bytes) -> bytes:
    """Return a PNG whose indices are levels of grey."""
    pieces, position = [data[:8]], 8
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        kind, body = data[position + 4 : position + 8], data[position + 8 : end - 4]
        if kind == b"IHDR":
            if zlib.crc32(kind + body).to_bytes(4, "big") != data[end - 4 : end]:  # the new one would hide it
                raise CorruptImageError("corrupt: the checksum of the PNG's header is wrong")
            body = body[:9] + b"\0" + body[10:]
            checksum = zlib.crc32(kind + body).to_bytes(4, "big")
            pieces.append(data[position : position + 4] + kind + body + checksum)
        elif kind not in (b"PLTE", b"tRNS", b"hIST", b"bKGD", b"sBIT"):
            pieces.append(data[position:end])
        position = end
    return b"".join(pieces)


def decode_stored(data: bytes, header: Header, color: str = "rgb", *, reduction: int = 1, depth: str = "8") -> Array:
    """Decode without applying the EXIF orientation.

    ``header`` is the result of :func:`~sparkopt.io.image_header.read_header`, which checks the size.
    """
    check("color", color, _COLORS)
    check("reduction", reduction, _REDUCTIONS)
    check("depth", depth, _DEPTHS)
    samples = decode_plain_jpeg(data, header, color) if header.format == "jpeg" and reduction == 1 else None
    if samples is not None:
        return samples
    if header.bits > 16 and depth == "8":
        raise CorruptImageError(
            f'unsupported: samples of {header.bits} bits; up to 16 are read as bytes, depth="keep" keeps more'
        )
    if header.format == "bigtiff":
        return _of_library(decode_tiff(data, header, depth), color, depth)
    if header.format in OTHERS:
        bits = header.bits if header.format in CODED else 16
        return _of_library(decode_by_library(data, header, depth), color, depth, bits)
    data = decodable(data, header)
    found = _of_tiff(data, header, color, depth) if header.format == "tiff" else None
    if found is not None:
        return found
    if header.bits > 8 and depth == "keep":
        return _kept(data, header, color)
    if header.format == "png" and reduction == 1:
        samples = decode_plain_png(data, header.height * header.width, (GREY, COLORED), (b"tRNS",))
        if samples is not None:
            return _converted(samples, "gray" if samples.shape[2] == 1 else "rgb", color)
    if color != "rgba":
        flags, decoded = _decode_flags(color, reduction, header.format)
        return _converted(_pixels(data, header, flags, reduction), decoded, color)
    image = _pixels(data, header, cv2.IMREAD_UNCHANGED, reduction)
    if header.format == "bmp" and image.ndim == 2:  # a palette that OpenCV took for levels of grey
        return _converted(_pixels(data, header, cv2.IMREAD_COLOR, reduction), "bgr", color)
    return _unchanged_to_rgba(image)


def _of_tiff(data: bytes, header: Header, color: str, depth: str) -> Array | None:
    """Return the samples of a TIFF that OpenCV would not decode, or to other values; None of all others."""
    layout = tiff_layout(data)
    if layout.is_signed and depth == "8":
        raise _no_bytes(f"int{header.bits}")
    if layout.is_foreign:
        return _of_library(decode_tiff(data, header, depth), color, depth)
    if layout.is_planar:
        planes = [_pixels(plane, header, cv2.IMREAD_UNCHANGED, 1) for plane in tiff_planes(data)]
        return _of_library(np.dstack(planes), color, depth)
    if header.bits > 8 and depth == "keep":
        return None
    if (layout.has_unassociated_alpha or layout.is_grey_with_alpha) and has_pillow():
        return _of_library(decode_by_library(data, header), color, depth)
    if layout.is_wide_with_alpha and color != "rgba":
        return _converted(_unchanged_to_rgba(_pixels(data, header, cv2.IMREAD_UNCHANGED, 1)), "rgba", color)
    if layout.has_unassociated_alpha:
        rgba = _unchanged_to_rgba(_pixels(data, header, cv2.IMREAD_UNCHANGED, 1))
        return _converted(_divided_by_alpha(rgba), "rgba", color)
    return None


def _pixels(data: bytes, header: Header, flags: int, reduction: int) -> Array:
    """Return what OpenCV decodes, of the size that the header gives."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error.err):  # the process has its own limit, below max_pixels
            raise CorruptImageError(
                f"too large: {header.height} x {header.width} pixels exceed the limit that the environment variable "
                "OPENCV_IO_MAX_IMAGE_PIXELS, _WIDTH or _HEIGHT sets"
            ) from error
        raise CorruptImageError(f"corrupt: OpenCV cannot decode the {header.format.upper()}: {error.err}") from error
    if image is None:
        raise CorruptImageError(f"corrupt: OpenCV cannot decode the {header.format.upper()}")
    if image.shape[:2] != (-(-header.height // reduction), -(-header.width // reduction)):
        raise CorruptImageError(
            f"corrupt: the header gives a size of {header.height} x {header.width}, and the decoded image has "
            f"{image.shape[0]} x {image.shape[1]}"
        )
    found: Array = image
    return found


def _of_library(image: Array, color: str, depth: str, bits: int = 16) -> Array:
    """Return pixels of another library in the type and the colours asked for; ``bits`` are those it fills."""
    if image.shape[2] == 2:  # grey with transparency
        image = image[..., [0, 0, 0, 1]]
    source = {1: "gray", 3: "rgb", 4: "rgba"}.get(image.shape[2])
    if source is None:
        raise CorruptImageError(f"unsupported: an image of {image.shape[2]} channels")
    if depth == "8" and image.dtype == np.uint16:
        image = (image >> max(bits - 8, 0)).astype(np.uint8)
    elif depth == "8" and image.dtype != np.uint8:
        raise _no_bytes(image.dtype)
    elif depth == "8" and bits < 8:
        image = (image.astype(np.uint16) * 255 // ((1 << bits) - 1)).astype(np.uint8)
    elif image.dtype not in (np.uint8, np.uint16, np.float32):
        image = image.astype(np.float32)
    return _converted(np.ascontiguousarray(image), source, color)


def _no_bytes(kind: object) -> CorruptImageError:
    return CorruptImageError(
        f'unsupported: samples of type {kind} have no eight-bit equivalent; depth="keep" keeps them'
    )


def _kept(data: bytes, header: Header, color: str) -> Array:
    """Return samples of 16 bits as they are, and more as float32."""
    image = with_channels(_pixels(data, header, cv2.IMREAD_UNCHANGED, 1))
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        image = image.astype(np.float32)
    source = {1: "gray", 3: "bgr", 4: "bgra"}.get(image.shape[2])
    if source is None:
        raise CorruptImageError(f"unsupported: an image of {image.shape[2]} channels")
    if source == "bgra":
        image, source = np.ascontiguousarray(image[..., [2, 1, 0, 3]]), "rgba"
    if source == "gray" and color == "gray":
        return image
    if image.dtype == np.float32 and color == "rgba" and source != "rgba":  # OpenCV's opaque is 1
        colors = _converted(image, source, "rgb")
        return np.dstack([colors, np.ones_like(colors[..., :1])])
    return _converted(image, source, color)


def _converted(image: Array, source: str, target: str) -> Array:
    image = with_channels(image)
    return image if source == target else convert_color(image, source, target)


def _divided_by_alpha(rgba: Array) -> Array:
    """Return colours that libtiff has multiplied by their alpha as they were, but for rounding."""
    alpha = rgba[..., 3:].astype(np.float32)
    colors = rgba[..., :3] * (255 / np.maximum(alpha, 1))
    return np.concatenate([np.rint(np.minimum(colors, 255)).astype(np.uint8), rgba[..., 3:]], axis=2)


def _decode_flags(color: str, reduction: int, kind: str) -> tuple[int, str]:
    """Return OpenCV's flags, and the resulting order of colours."""
    if color == "gray" and kind == "png":  # libpng's own gray depends on the file's gamma
        return _decode_flags("rgb", reduction, kind)
    if color == "rgba":
        return cv2.IMREAD_UNCHANGED, "rgba"
    if color == "gray":
        return {1: 0, 2: 16, 4: 32, 8: 64}[reduction], "gray"
    if reduction > 1:  # OpenCV has no reduced RGB; exchanging the channels of a reduced image is cheap
        return {2: 17, 4: 33, 8: 65}[reduction], "bgr"
    if color == "rgb" and hasattr(cv2, "IMREAD_COLOR_RGB"):
        return cv2.IMREAD_COLOR_RGB, "rgb"
    return cv2.IMREAD_COLOR, "bgr"


def _unchanged_to_rgba(image: Array) -> Array:
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)  # as OpenCV does when it reads sixteen bits into eight
    elif image.dtype != np.uint8:
        raise CorruptImageError(f"unsupported: samples of type {image.dtype} have no eight-bit equivalent")
    image = with_channels(image)
    source = {1: "gray", 3: "bgr", 4: "bgra"}.get(image.shape[2])
    if source is None:
        raise CorruptImageError(f"unsupported: an image of {image.shape[2]} channels")
    return image[..., [2, 1, 0, 3]] if source == "bgra" else convert_color(image, source, "rgba")


def encode(image: Array, format: str = "jpeg", quality: int = 90) -> bytes:  # noqa: A002 - the field's word
    """Encode an image; its colour channels must be in the order RGB.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width, channels)
        JPEG stores 1 or 3 channels; of 4, it drops the transparency. PNG takes uint16 too.
    format : {"jpeg", "png", "webp"}, default "jpeg"
        The file format. PNG is lossless.
    quality : int, default 90
        1 (smallest) to 100 (best), for jpeg and webp.

    Raises
    ------
    ParameterError
        For values of another type.
    DataError
        Where the format cannot hold an image of this size: a side of a WebP has at most 16,383 pixels.
    """
    check("format", format, OneOf(ENCODINGS))
    check("quality", quality, Interval(1, 100, whole=True))
    if not isinstance(image, np.ndarray):
        raise ParameterError(f"image must be an array. Got {type(image).__name__} instead.")
    if image.dtype != np.uint8 and not (format == "png" and image.dtype == np.uint16):
        raise ParameterError(
            f"image must be of type uint8 to be encoded{', or uint16' * (format == 'png')}. Got {image.dtype} "
            "instead; encode before rescaling."
        )
    suffix, flag = ENCODINGS[format]
    image = with_channels(image) if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or not image.size:
        raise ParameterError(
            f"image must have the shape (height, width, channels), of 1, 3 or 4 channels. Got {image.shape} instead."
        )
    if image.shape[2] == 4:
        image = image[..., [2, 1, 0, 3]] if format != "jpeg" else convert_color(image, "rgba", "bgr")
    elif image.shape[2] == 3:
        image = convert_color(image, "rgb", "bgr")
    # OpenCV takes a WebP quality above 100 for lossless; the flag is left out for PNG, which has none.
    options = [] if flag is None else [flag, quality]
    try:
        is_done, encoded = cv2.imencode(suffix, np.ascontiguousarray(image), options)
    except cv2.error:
        is_done = False
    if not is_done:
        raise DataError(f"too large: {format} cannot hold an image of {image.shape[0]} x {image.shape[1]} pixels")
    content: bytes = encoded.tobytes()
    return content
