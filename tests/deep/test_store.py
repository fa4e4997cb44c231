"""Rows on storage and back: every kind of column, bad rows, batches that resume, images that depend on nothing."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pyarrow as pa
import pytest
import torch

from sparkopt import images
from sparkopt.blocks.tables import spark_schema
from sparkopt.deep.batch import Decoder
from sparkopt.deep.config import TrainConfig
from sparkopt.deep.data_loader import RankDataLoader
from sparkopt.deep.stream import load_batches
from sparkopt.errors import CorruptImageError, DataError, ParameterError, SchemaError
from sparkopt.launch import LocalCommunicator
from sparkopt.shards.fields import Field, Fields
from sparkopt.shards.groups import RowGroups, contents
from sparkopt.shards.held_out import HeldOut
from sparkopt.shards.index import TRAINING, VALIDATION, Index
from sparkopt.shards.sampler import EpochSampler
from sparkopt.shards.store import write_store
from tests.deep.rows import parted

ROWS = 1300
DECODE = images.Compose([images.Decode("gray"), images.Resize(8, 8), images.Rescale(1 / 255)])


VECTOR = pa.struct(
    {"type": pa.int8(), "size": pa.int32(), "indices": pa.list_(pa.int32()), "values": pa.list_(pa.float64())}
)
FEATURES = ["real", "array", "nested", "vector", "tensor", "id"]


def table():
    """One column of each kind, all of which say which row they belong to; partitions of very unlike size."""
    ids = range(ROWS)
    vectors = [dict(type=1, size=None, indices=None, values=[float(row), -float(row)]) for row in ids]
    columns = {
        "id": pa.array(ids, pa.int64()),
        "real": pa.array(ids, pa.float64()),
        "array": pa.array([[row, row + 0.5] for row in ids], pa.list_(pa.float64(), 2)),
        "nested": pa.array([[[row, row + 1], [row + 2, row + 3]] for row in ids], pa.list_(pa.list_(pa.float64()))),
        "vector": pa.array(vectors, VECTOR),
        "tensor": pa.array([dict(shape=[2, 1, 1], dtype="uint8", data=row.to_bytes(2, "big")) for row in ids]),
        "label": pa.array([row % 3 for row in ids], pa.int16()),
        "weight": pa.array([0.5 if row % 2 else 2.0 for row in ids]),
        "aside": pa.array([row % 10 == 0 for row in ids]),
    }
    return parted(columns, [1000, 1100, 1200, 1300])


def fields_of(rows, *columns):
    return Fields.of(spark_schema(rows.schema), *columns)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    rows, folder = table(), tmp_path_factory.mktemp("store")
    fields = fields_of(rows, FEATURES, "label", "weight")
    return write_store(rows, fields, str(folder / "rows"), HeldOut(("aside",)))


def batches(index, sampler, streams, split=TRAINING, pipeline=None, **options):
    with load_batches(RowGroups(index, split), sampler, streams, Decoder(index.fields, pipeline), **options) as found:
        return [batch.to(torch.device("cpu")) for batch in found]


def test_every_kind_of_column_comes_back(index):
    sampler = EpochSampler(RowGroups(index).sizes, 2, 100, seed=3)
    seen = []
    for batch in batches(index, sampler, range(2)):
        real, array, nested, vector, tensor, whole = batch.inputs
        counted = batch.weight > 0
        ids = real[counted].long()
        seen += ids.tolist()
        assert torch.equal(array[counted], torch.stack([real, real + 0.5], 1)[counted])
        expected = torch.stack([torch.stack([real, real + 1], 1), torch.stack([real + 2, real + 3], 1)], 1)
        assert torch.equal(nested[counted], expected[counted])
        assert torch.equal(vector[counted], torch.stack([real, -real], 1)[counted])
        assert tensor.shape == (batch.counted, 2, 1, 1)
        assert torch.equal((tensor[counted, 0, 0, 0] * 256 + tensor[counted, 1, 0, 0]).long(), ids)
        assert torch.equal(whole[counted], ids)
        assert torch.equal(batch.target[counted], ids % 3)
        assert torch.equal(batch.weight[counted], torch.where(ids % 2 == 0, 2.0, 0.5))
        assert {t.dtype for t in batch.inputs} == {torch.float32, torch.int64}
    assert sorted(seen) == [row for row in range(ROWS) if row % 10]


def test_rows_held_out_are_apart(index):
    (batch,) = batches(
        index, EpochSampler(RowGroups(index, VALIDATION).sizes, 1, 130, shuffle=False), range(1), VALIDATION
    )
    assert sorted(batch.inputs[5].tolist()) == list(range(0, ROWS, 10))
    assert (index.rows(TRAINING), index.rows(VALIDATION)) == (1170, 130)


def test_an_index_is_found_again(index):
    found = Index.load(index.uri)
    assert found == index
    assert found.fingerprint == index.fingerprint
    with pytest.raises(DataError, match=r"no store at '/nowhere' .* Set storePath to storage that the driver and"):
        Index.load("/nowhere")
    with pytest.raises(ParameterError, match="storePath='nosuch://x' cannot be used"):
        Index.load("nosuch://x")


@pytest.mark.parametrize(("streams", "size", "window"), [(2, 64, 100), (3, 500, 8192), (1, 7, 1)])
def test_an_epoch_continues_where_it_was_left(index, streams, size, window):
    sampler = EpochSampler(RowGroups(index).sizes, streams, size, 1, 2, True, window)
    for stream in range(streams):
        whole = batches(index, sampler, range(stream, stream + 1))
        assert len(whole) == sampler.steps
        for first in (1, sampler.steps // 2, sampler.steps - 1):
            rest = batches(index, sampler, range(stream, stream + 1), first_step=first)
            for one, two in zip(whole[first:], rest, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(one.inputs, two.inputs, strict=True))
                assert torch.equal(one.weight, two.weight)
                assert one.counted == two.counted


def test_batches_are_the_same_without_a_thread(index):
    sampler = EpochSampler(RowGroups(index).sizes, 2, 50, 1, 2, True, 100)
    threads = {thread.name for thread in threading.enumerate()}
    with load_batches(RowGroups(index), sampler, range(2), Decoder(index.fields), first_step=3, ahead=0) as found:
        for one, two in zip(found, batches(index, sampler, range(2), first_step=3), strict=True):
            assert {thread.name for thread in threading.enumerate()} <= threads
            assert all(torch.equal(a, b) for a, b in zip(one.inputs, two.inputs, strict=True))
            assert torch.equal(one.weight, two.weight)
            assert one.parts == two.parts


def test_rows_shuffled_together_are_bounded_in_bytes_too(index, monkeypatch):
    monkeypatch.setattr("sparkopt.shards.index.WINDOW_BYTES", 100 * (index.bytes // ROWS) + 1)
    rows, seen = RankDataLoader(TrainConfig(index.uri, 1, 64, 1), LocalCommunicator(), torch.device("cpu")), []
    assert rows.sampler(0).window_rows == 100
    fewer = RankDataLoader(TrainConfig(index.uri, 1, 64, 1, window_rows=7), LocalCommunicator(), None)
    assert fewer.sampler(0).window_rows == 7
    with rows.training(0, 0) as taken:
        for batch in taken:
            seen += batch.inputs[5][: batch.counted].tolist()
    assert sorted(seen) == [row for row in range(ROWS) if row % 10]


def test_one_process_with_all_streams_sees_what_all_see(index):
    sampler = EpochSampler(RowGroups(index).sizes, 4, 50, seed=1)
    apart = [batches(index, sampler, range(stream, stream + 1)) for stream in range(4)]
    for step, batch in enumerate(batches(index, sampler, range(4))):
        assert torch.equal(batch.inputs[0], torch.cat([parts[step].inputs[0] for parts in apart]))
        assert batch.counted == sampler.total_counted(step)


BAD_ROWS = {
    "null": (("x", None), "features column 'x', partition 1, row 1 is null"),
    "nan": (("x", [1.0, float("nan")]), "features column 'x', partition 1, row 1 is nan at position 1"),
    "ragged": (("x", [1.0]), "features column 'x', partition 1, row 1 has 1 entries where .* have 2"),
    "null entry": (("x", [1.0, None]), "features column 'x', partition 1, row 1 has a null entry"),
    "label": (("y", float("inf")), "label column 'y', partition 1, row 1 is inf"),
    "weight": (("w", -1.0), "weight column 'w', partition 1, row 1 is -1; it must be >= 0"),
}


@pytest.mark.parametrize(("change", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_and_nothing_stays(tmp_path, change, message):
    columns = {"x": [[1.0, 2.0]] * 6, "y": [1.0] * 6, "w": [1.0] * 6}
    columns[change[0]][4] = change[1]
    rows = parted(columns, [3])
    with pytest.raises(DataError, match=message + r".* Filter or repair"):
        write_store(rows, fields_of(rows, "x", "y", "w"), str(tmp_path / "rows"))
    assert not list(tmp_path.iterdir())


def test_partitions_must_agree(tmp_path):
    rows = parted({"x": [[0], [0], [0, 1], [0, 1]], "y": range(4)}, [2])
    with pytest.raises(DataError, match=r"rows differ in shape or type: training-00000"):
        write_store(rows, fields_of(rows, "x", "y"), str(tmp_path / "rows"))
    empty = parted({"x": pa.array([], pa.list_(pa.int64())), "y": pa.array([], pa.int64())})
    with pytest.raises(DataError, match="no rows to train on"):
        write_store(empty, fields_of(empty, "x", "y"), str(tmp_path / "rows"))


WRONG_COLUMNS = {
    "missing": (("nothing", "y", None), "features column 'nothing' does not exist. Columns: x, y, t"),
    "a date": (("d", "y", None), "features column 'd' has type date; it must be a number, a Vector, an array"),
    "bytes label": (("x", "b", None), "label column 'b' holds bytes"),
    "text label": (("x", "t", None), "label column 't' holds text"),
    "weight": (("x", "y", "t"), "weight column 't' has type string; it must be numeric"),
    "none": (([], "y", None), "featuresCols is empty"),
}


@pytest.mark.parametrize(("columns", "message"), WRONG_COLUMNS.values(), ids=WRONG_COLUMNS)
def test_wrong_columns_are_refused_by_their_type(columns, message):
    kinds = {"x": pa.list_(pa.int64()), "y": pa.int64(), "t": pa.string(), "b": pa.binary(), "d": pa.date32()}
    with pytest.raises(SchemaError, match=message):
        Fields.of(spark_schema(pa.schema(kinds)), *columns)


def test_where_a_group_ends_depends_on_its_rows_only(tmp_path, monkeypatch):
    """Not on the batches that rows come in, nor on who wrote them: groups are the least that is shuffled."""
    rng = np.random.default_rng(0)
    content = [rng.bytes(size) for size in rng.integers(1, 40_000, 300)]
    rows = parted({"image": content, "y": range(300), "aside": [row % 7 == 0 for row in range(300)]}, [100])
    found = []
    for size in (1, 13, 10_000):
        monkeypatch.setattr("sparkopt.machine.part.BATCH", size)
        folder = str(tmp_path / str(size))
        found.append(write_store(rows, fields_of(rows, "image", "y"), folder, HeldOut(("aside",))))
    assert len({index.fingerprint for index in found}) == 1
    lengths = [len(one) for number, one in enumerate(content[:100]) if number % 7]
    starts = np.cumsum([0, *found[0].training[0].groups])
    for start, stop in itertools.pairwise(starts):  # a further row would have been too much
        assert sum(lengths[start:stop]) + 8 * (stop - start) <= 1 << 20
        assert stop == starts[-1] or sum(lengths[start : stop + 1]) + 8 * (stop + 1 - start) > 1 << 20


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Images of random pixels, whose mean brightness is also their label."""
    rng = np.random.default_rng(0)
    content = [rng.integers(0, 256, (9, 12, 1), dtype=np.uint8) for _ in range(50)]
    encoded = [images.functional.encode(image, "png") for image in content]
    rows = parted({"image": encoded, "label": pa.array(range(50), pa.float32())}, [20])
    folder = str(tmp_path_factory.mktemp("pictures") / "rows")
    return write_store(rows, fields_of(rows, "image", "label"), folder), content


@pytest.mark.parametrize(("mode", "channels"), [("gray", 1), ("rgb", 3)])
def test_images_are_decoded_on_the_way(pictures, mode, channels):
    index, content = pictures
    decode = images.Compose([images.Decode(mode), *DECODE.transforms[1:]])
    (batch,) = batches(index, EpochSampler(RowGroups(index).sizes, 1, 50), range(1), pipeline=decode, threads=2)
    assert batch.inputs[0].shape == (50, channels, 8, 8)
    assert batch.inputs[0].stride() == torch.empty(50, channels, 8, 8).stride()  # or convolutions give other strides
    for image, label in zip(batch.inputs[0], batch.target, strict=True):
        expected = np.repeat(DECODE(content[int(label)]), channels, 2).transpose(2, 0, 1)
        np.testing.assert_allclose(image.numpy(), expected, atol=1e-6)


def test_images_of_several_channels_lie_in_memory_as_their_shape_says():
    """Else a convolution would hand their order on, and networks that then ask for a view would fail."""
    rng = np.random.default_rng(0)
    content = [images.functional.encode(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8), "png") for _ in range(4)]
    colour = images.Compose([images.Decode("rgb"), images.Rescale(1 / 255)])
    (batch,) = Decoder(Fields((Field("input0", ("image",), "bytes"),)), colour).inputs(
        {"input0": contents(pa.array(content))}
    )
    assert torch.nn.Conv2d(3, 2, 3)(batch).view(4, -1).shape == (4, 2 * 4 * 3)
    expected = [colour(image).transpose(2, 0, 1) for image in content]
    np.testing.assert_array_equal(batch, expected)


def test_images_of_bytes_wait_as_bytes_and_become_numbers_on_the_device(pictures):
    index, content = pictures
    whole = images.Compose([images.Decode("rgb")])
    with load_batches(
        RowGroups(index), EpochSampler(RowGroups(index).sizes, 1, 20), range(1), Decoder(index.fields, whole)
    ) as taken:
        for batch in taken:
            (waiting,), (moved,) = batch.inputs, batch.to(torch.device("cpu")).inputs
            assert (waiting.dtype, moved.dtype) == (torch.uint8, torch.float32)
            for image, label in zip(moved, batch.target, strict=True):
                np.testing.assert_array_equal(image, whole(content[int(label)]).transpose(2, 0, 1))


def test_decoded_images_are_kept_for_later_epochs(pictures, monkeypatch):
    """The same tensors to the bit; and as many images are decoded as the memory does not hold."""
    index, content = pictures
    count, decode, size = [0], images.Compose.__call__, DECODE(content[0]).nbytes

    def counted(*args):
        count[0] += 1
        return decode(*args)

    def epochs(most):
        config = TrainConfig(index.uri, 2, 10, 1, pipeline=DECODE.to_json(), cache_bytes=most)
        rows, found, count[0] = RankDataLoader(config, LocalCommunicator(), torch.device("cpu")), {}, 0
        for epoch in range(3):
            with rows.training(epoch, 0) as taken:
                for batch in taken:
                    found |= {(epoch, int(key)): one for key, one in zip(batch.target, batch.inputs[0], strict=True)}
        return torch.stack([found[key] for key in sorted(found)]), count[0]

    monkeypatch.setattr(images.Compose, "__call__", counted)
    (plain, every), (some, fewer), (kept, once) = (epochs(most) for most in (0, 20 * size, 50 * size))
    assert (every, fewer, once) == (150, 50 + 2 * 30, 50)
    assert torch.equal(some, plain)
    assert torch.equal(kept, plain)


def test_augmentation_depends_on_seed_image_and_epoch_only(pictures):
    index, _ = pictures
    crop = images.Compose([images.Decode("gray"), images.RandomCrop(8, 8), images.Rescale(1 / 255)])

    def augmented(size, seed, epoch):
        sampler = EpochSampler(RowGroups(index).sizes, 1, size, seed=size)
        decoder = Decoder(index.fields, crop, seed, epoch)
        found = {}
        with load_batches(RowGroups(index), sampler, range(1), decoder, threads=2) as taken:
            for batch in taken:
                found |= {int(key): image for key, image in zip(batch.target, batch.inputs[0], strict=True)}
        return torch.stack([found[key] for key in sorted(found)])

    assert torch.equal(augmented(7, 1, 0), augmented(50, 1, 0))
    assert not torch.equal(augmented(7, 1, 0), augmented(7, 1, 1))
    assert not torch.equal(augmented(7, 1, 0), augmented(7, 2, 0))


def test_what_fails_ahead_is_raised_where_it_is_taken(tmp_path):
    rows = parted({"image": [b"no image"], "label": [1.0]})
    index = write_store(rows, fields_of(rows, "image", "label"), str(tmp_path / "rows"))
    with pytest.raises(CorruptImageError, match="^features column 'image', partition 0, row 0: not an image"):
        batches(index, EpochSampler((1,), 1, 1), range(1), pipeline=DECODE)


def test_leaving_early_ends_the_threads(index):
    sampler = EpochSampler(RowGroups(index).sizes, 1, 5)
    with load_batches(RowGroups(index), sampler, range(1), Decoder(index.fields), threads=2) as found:
        next(found)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("sparkopt-")]


def test_batches_for_a_gpu_are_pinned_ahead(index, monkeypatch):
    """By the threads that prepare them; there is no GPU here that would mind."""
    pinned = []

    def pin(tensor):
        pinned.append(threading.current_thread().name)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    found = batches(index, EpochSampler(RowGroups(index).sizes, 1, 500), range(1), pin=True)
    assert len(pinned) == len(found) * (len(found[0].inputs) + 2)  # labels and weights too
    assert all(name.startswith("sparkopt-decode") for name in pinned)
