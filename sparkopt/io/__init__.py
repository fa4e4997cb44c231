"""Reading and writing outside of Spark: paths and URIs, Arrow buffers, image headers, metadata and fingerprints.

Everything here works without Spark and OpenCV, and imports only ``errors``, ``typing`` and ``validation``. Start at
:func:`resolve`, by which checkpoints, stores, images and models open a path or URI; ``object_stores`` opens what a
Spark session reads, with its settings. ``secrets`` masks passwords and tokens before a text is shown.
"""

from sparkopt.io.arrow import binary_values, fixed_width_values
from sparkopt.io.filesystem import STORAGE_ERRORS, Location, arrow_uri, brief, child_uri, local_path, resolve
from sparkopt.io.fingerprint import Fingerprint, describe, differences, digest, rounded
from sparkopt.io.image_header import MAX_PIXELS, Header, read_header
from sparkopt.io.metadata import check_digest, damage, digested, read_metadata, write_metadata
from sparkopt.io.saved import FileSession, copy_folder, fetched, replacing, written_whole
from sparkopt.io.secrets import MASK, mask, mask_uri, masked
from sparkopt.io.worker import spare_modules

__all__ = [
    "MASK",
    "MAX_PIXELS",
    "STORAGE_ERRORS",
    "FileSession",
    "Fingerprint",
    "Header",
    "Location",
    "arrow_uri",
    "binary_values",
    "brief",
    "check_digest",
    "child_uri",
    "copy_folder",
    "damage",
    "describe",
    "differences",
    "digest",
    "digested",
    "fetched",
    "fixed_width_values",
    "local_path",
    "mask",
    "mask_uri",
    "masked",
    "read_header",
    "read_metadata",
    "replacing",
    "resolve",
    "rounded",
    "spare_modules",
    "write_metadata",
    "written_whole",
]
