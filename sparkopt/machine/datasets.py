"""Tables of pyarrow datasets: Parquet files by row groups; all other datasets as a stream."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from sparkopt.io.filesystem import Location
from sparkopt.machine.arrow_files import PrivateFolder, from_stream
from sparkopt.machine.listing import DataFile
from sparkopt.machine.parquet import from_parquet
from sparkopt.machine.part import TablePart

__all__ = ["from_dataset"]


def from_dataset(dataset: Any) -> tuple[pa.Schema, list[TablePart], PrivateFolder | None]:
    """Return schema and partitions of a pyarrow.dataset.Dataset, and the folder of a stream's file."""
    from pyarrow import dataset as ds

    is_whole = isinstance(dataset, ds.FileSystemDataset) and not getattr(dataset, "_scan_options", None)
    fragments = list(dataset.get_fragments()) if is_whole else []  # of one with a filter, there is a stream only
    if not all(_is_plain(fragment, ds) for fragment in fragments):
        fragments = []
    files = [_file(fragment, ds) for fragment in fragments]
    if not files or any(not _holds(fragment, dataset.schema) for fragment in fragments):
        return from_stream(dataset.scanner().to_reader())
    schema, parts = from_parquet(files, dataset.schema)
    return schema, parts, None


def _is_plain(fragment: Any, ds: Any) -> bool:
    """Whether it is a Parquet file on a file system."""
    return isinstance(fragment, ds.ParquetFileFragment) and bool(fragment.path)


def _holds(fragment: Any, schema: pa.Schema) -> bool:
    """Whether a file has the dataset's columns as the dataset has them, but for those of its folders."""
    own = fragment.physical_schema
    return all(name in own.names and own.field(name).type == kind for name, kind in _own(schema, fragment))


def _own(schema: pa.Schema, fragment: Any) -> list[tuple[str, pa.DataType]]:
    from pyarrow import dataset as ds

    folders = ds.get_partition_keys(fragment.partition_expression)
    return [(field.name, field.type) for field in schema if field.name not in folders]


def _file(fragment: Any, ds: Any) -> DataFile:
    info = fragment.filesystem.get_file_info(fragment.path)
    place = Location(fragment.filesystem, fragment.path, fragment.path)
    constants = ds.get_partition_keys(fragment.partition_expression)
    return DataFile(place, info.base_name, "Parquet", info.size, info.mtime_ns // 1_000_000, constants)
