"""Tables of Ray's Datasets: rows stay in Ray's object store, and functions run in its tasks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from sparkopt.errors import SchemaError
from sparkopt.machine.cluster import Cluster, FrameRows, Mapped, Outcome, RemotePart, as_field, lost, references
from sparkopt.machine.folders import private_folders
from sparkopt.machine.memory import arrow_of_pandas
from sparkopt.machine.part import UNREADABLE
from sparkopt.machine.ray_actors import Actors, called, node_id
from sparkopt.values import dataclass

__all__ = ["RayCluster", "is_ray", "mapped", "outline", "table_of"]


def is_ray(data: Any) -> bool:
    """Whether it is a Dataset of Ray."""
    return type(data).__module__.startswith("ray.data.") and type(data).__name__ in ("Dataset", "MaterializedDataset")


def table_of(data: Any) -> FrameRows:
    """Return schema, partitions and cluster of a dataset; Ray computes it, and keeps its rows while they are used.

    Raises
    ------
    SchemaError
        Where Ray knows no schema.
    """
    import ray

    schema = _schema(data)
    form, kept = ToArrow(schema), data.materialize()
    parts = [
        RemotePart(f"block {index}", form, reference, ray.get) for index, reference in enumerate(kept.to_arrow_refs())
    ]
    return FrameRows(schema, parts, RayCluster(kept), "ray: blocks of a Dataset")


def outline(data: Any) -> tuple[pa.Schema, RemotePart, RayCluster]:
    """Return the schema of a dataset, a part that stands for each of its batches, and its cluster."""
    schema = _schema(data)
    return schema, RemotePart("a batch", ToArrow(schema)), RayCluster()


def _schema(data: Any) -> pa.Schema:
    """Return the columns; a tensor of one dimension is a list."""
    found = data.schema()
    if found is None:
        raise SchemaError("the Dataset has no rows, so Ray knows no columns of it.")
    base = found.base_schema
    if not isinstance(base, pa.Schema):  # blocks of pandas
        base = pa.schema([pa.field(name, kind) for name, kind in zip(found.names, found.types, strict=True)])
    return pa.schema([_field(field) for field in base])


def _field(field: pa.Field) -> pa.Field:
    kind = field.type
    if not isinstance(kind, pa.BaseExtensionType):
        return pa.field(field.name, kind)
    shape = getattr(kind, "shape", None)
    if shape is not None and len(shape) == 1:
        return pa.field(field.name, pa.list_(kind.storage_type.value_type))
    reason = f"{kind}: a tensor of several dimensions has no column type; flatten it in map_batches"
    return pa.field(field.name, pa.null(), metadata={UNREADABLE: reason})


@dataclass(frozen=True)
class ToArrow:
    """The rows of one of Ray's blocks as a table's columns."""

    schema: pa.Schema

    def __call__(self, rows: Any) -> pa.Table:
        """Return the rows.

        Raises
        ------
        SchemaError
            Where a block has other columns or types than the dataset.
        """
        rows = rows if isinstance(rows, pa.Table) else arrow_of_pandas(rows)
        if not rows.num_columns and not rows.num_rows:  # an empty block has no schema
            return self.schema.empty_table()
        return pa.table([self._column(rows, field) for field in self.schema], schema=self.schema)

    def _column(self, rows: pa.Table, field: pa.Field) -> Any:
        if field.name not in rows.schema.names:
            raise SchemaError(f"a block has no column {field.name!r}; it has {rows.schema.names}.")
        column = rows.column(field.name)
        if isinstance(column.type, pa.BaseExtensionType):
            column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
        return as_field(column, field)


_ACTORS = Actors()


class RayCluster(Cluster):
    """The nodes of the Ray cluster that this process is connected to.

    Parameters
    ----------
    kept : object, default None
        The dataset, whose blocks Ray keeps while it is there.
    """

    pass_seconds = 0.01  # measured: a round trip to tasks whose workers are there

    def __init__(self, kept: Any = None) -> None:
        super().__init__()
        self._kept = kept
        self._keepers: dict[str, Any] = {}

    @property
    def _nodes(self) -> list[dict[str, Any]]:
        import ray

        return [node for node in ray.nodes() if node["Alive"]]

    @property
    def name(self) -> str:
        """Ray, and how many nodes."""
        count = self.workers
        return f"Ray, {count} node{'s' if count != 1 else ''}"

    @property
    def is_here(self) -> bool:
        """Whether all nodes are this machine."""
        import ray

        return {node["NodeManagerAddress"] for node in self._nodes} <= {"127.0.0.1", ray.util.get_node_ip_address()}

    @property
    def slots(self) -> int:
        """CPUs of all nodes."""
        return max(1, int(sum(node["Resources"].get("CPU", 0) for node in self._nodes)))

    @property
    def workers(self) -> int:
        """Nodes: the processes of one share its files."""
        return max(1, len(self._nodes))

    @property
    def slots_each(self) -> int:
        """CPUs of the node that has the most."""
        return max((int(node["Resources"].get("CPU", 0)) for node in self._nodes), default=1)

    def _outcomes(
        self, function: Callable[[Any], Any], tasks: Sequence[tuple[Hashable | None, list[Any]]]
    ) -> list[list[Outcome]]:
        import ray
        from pyspark.cloudpickle import dumps, loads
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if all(where is not None and not references(tuple(items)) for where, items in tasks):
            found = _ACTORS.run(function, tasks)
            if found is not None:
                return found
        pickled = ray.put(dumps(function))
        call = ray.remote(called)
        running = []
        for node, items in tasks:
            where = "DEFAULT" if node is None else NodeAffinitySchedulingStrategy(node, soft=True)
            one = call.options(num_cpus=1, scheduling_strategy=where, name="sparkopt")
            running.append(one.remote(pickled, dumps(items), *references(tuple(items))))
        try:
            return [loads(outcomes) for outcomes in ray.get(running)]
        except ray.exceptions.WorkerCrashedError as error:
            raise lost(error) from None
        except BaseException:  # an interrupt too: nothing is computed in vain
            for one in running:
                ray.cancel(one, force=False)
            raise

    def folder(self) -> Callable[[], Path]:
        """Return the folder of the node, which a process of its own keeps: Ray ends workers that are idle."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        keeper = ray.remote(_Keeper)
        for node in self._nodes:
            if node["NodeID"] not in self._keepers:
                where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                self._keepers[node["NodeID"]] = keeper.options(num_cpus=0, scheduling_strategy=where).remote()
        return OfNode({node: ray.get(one.folder.remote()) for node, one in self._keepers.items()})

    def drop(self, name: str) -> None:
        """Delete a folder on every node, if Ray is still there."""
        import ray

        if ray.is_initialized():
            for keeper in self._keepers.values():
                keeper.drop.remote(name)


def mapped(data: Any, made: Mapped) -> Any:
    """Return a Dataset with what was made of its outline, lazily."""

    def apply(batch: pa.Table) -> pa.Table:  # Ray takes functions and classes, and no other callables
        return made(batch)

    return data.map_batches(apply, batch_format="pyarrow", zero_copy_batch=True)


@dataclass(frozen=True)
class OfNode:
    """The folder of the node that a task runs on.

    Parameters
    ----------
    folders : dict of str to str
        By node; a node that came later has none, and there the worker's own is used.
    """

    folders: dict[str, str]

    def __call__(self) -> Path:
        """Return it."""
        found = self.folders.get(node_id())
        return private_folders()[0] if found is None else Path(found)


class _Keeper:
    """An actor that owns a node's folder while it lives."""

    def folder(self) -> str:
        """Return the folder."""
        return str(private_folders()[0])

    def drop(self, name: str) -> None:
        """Delete a folder in it."""
        shutil.rmtree(private_folders()[0] / name, ignore_errors=True)
