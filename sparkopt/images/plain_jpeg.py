"""JPEGs by simplejpeg, where it is installed: OpenCV's samples to the bit, in nine tenths of its time.

Both are libjpeg-turbo, but OpenCV copies each image once more. It decodes what simplejpeg refuses.
"""

from __future__ import annotations

import logging

from sparkopt.images.optional_decoders import may_hold, optional_decoder
from sparkopt.io.image_header import Header
from sparkopt.typing import Array

__all__ = ["decode_plain_jpeg"]

logger = logging.getLogger(__name__)
_IN_A_MILLISECOND = 3 * 2**17  # samples


def decode_plain_jpeg(data: bytes, header: Header, color: str) -> Array | None:
    """Return the samples of a JPEG; None where OpenCV must decode it, or say what is wrong.

    Parameters
    ----------
    data : bytes
        The encoded image.
    header : Header
        What ``read_header`` returned for it.
    color : {"rgb", "bgr", "rgba", "gray"}
        Channels of the result.

    Returns
    -------
    ndarray of uint8, shape (height, width, channels), or None
        Of the header's size; what libjpeg warns of is left to OpenCV.
    """
    decoder = optional_decoder("simplejpeg", "decode_jpeg")
    if decoder is None or not may_hold(3 * header.height * header.width, _IN_A_MILLISECOND):
        return None
    try:
        samples: Array = decoder(data, color.upper())
    except (ValueError, RuntimeError) as error:
        logger.debug("simplejpeg cannot decode a JPEG, which is left to OpenCV: %s", error)
        return None
    return samples if samples.shape[:2] == (header.height, header.width) else None
