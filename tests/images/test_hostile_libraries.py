"""Files of formats that libraries decode which are not installed for the tests: skipped where they are not there.

``pip install pillow-heif pydicom`` in an environment of its own; its folder on PYTHONPATH is enough.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from PIL import Image

from sparkopt import images
from sparkopt.errors import CorruptImageError
from tests.images.test_hostile import survives_mutations


def heic(mode: str = "RGB", size=(17, 23)) -> bytes:
    """A HEIC of noise; its frame is filled up to whole blocks, and cut."""
    library = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed: pip install pillow-heif")
    file, pixels = io.BytesIO(), np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    library.from_pillow(Image.fromarray(pixels).convert(mode)).save(file, quality=90)
    return file.getvalue()


def dicom(channels: int = 1, frames: int = 1, is_packed: bool = False) -> bytes:
    """A DICOM file of noise: of 12 bits with a window, or of colours; packed, by run lengths."""
    library = pytest.importorskip("pydicom", reason="pydicom is not installed: pip install pydicom")
    data = library.dataset.Dataset()
    data.file_meta = library.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = library.uid.ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    kind, most, bits = ("u2", 4096, 16) if channels == 1 else ("u1", 256, 8)
    shape = (17, 23) if channels == 1 else (17, 23, 3)
    pixels = np.random.default_rng(1).integers(0, most, (frames, *shape), np.dtype(kind))
    data.Rows, data.Columns, data.SamplesPerPixel = 17, 23, channels
    data.PhotometricInterpretation = "MONOCHROME2" if channels == 1 else "RGB"
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelRepresentation, data.NumberOfFrames = bits - 1, 0, frames
    if channels == 1:
        data.RescaleSlope, data.RescaleIntercept, data.WindowCenter, data.WindowWidth = "1.5", "-10", "600", "1600"
    else:
        data.PlanarConfiguration = 0
    data.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    if is_packed:
        data.compress(library.uid.RLELossless, pixels if frames > 1 else pixels[0])
    file = io.BytesIO()
    library.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


BY_OTHERS = {
    "heic": heic, "gray.heic": lambda: heic("L"), "dicom": dicom, "rgb.dicom": lambda: dicom(3),
    "packed.dicom": lambda: dicom(is_packed=True), "packed.rgb.dicom": lambda: dicom(3, is_packed=True),
    "frames.dicom": lambda: dicom(frames=3),
}  # fmt: skip
"""Files that are made where a library is installed, which tests do not need otherwise."""


@pytest.mark.parametrize("name", BY_OTHERS)
def test_files_of_other_libraries_are_read_and_halves_are_not(name):
    data = BY_OTHERS[name]()
    assert images.decode(data).shape == (17, 23, 3)
    for cut in range(1, len(data), 29):
        with contextlib.suppress(CorruptImageError):  # what ends after the pixels is whole
            assert images.decode(data[:cut]).shape == (17, 23, 3)


@pytest.mark.parametrize("size", [(64, 64), (65, 70), (1, 1), (129, 127), (256, 384)])
def test_heics_of_any_size_are_read(size):
    """Frames are filled up to even sides and whole blocks, which the header has, and what is shown is cut."""
    data = heic(size=size)
    assert images.read_header(data).size == images.decode(data).shape[:2] == size


@pytest.mark.usefixtures("minutes")
@pytest.mark.parametrize("name", BY_OTHERS)
def test_no_mutation_ends_the_process(name, tmp_path):
    (tmp_path / name).write_bytes(BY_OTHERS[name]())
    survives_mutations(tmp_path / name)
