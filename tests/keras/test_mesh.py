"""A mesh of JAX's devices, here several virtual ones of one CPU, goes where plain Keras goes on the joined batch.

XLA fixes how many devices a CPU has when a process first computes, so what is trained here runs in processes of its
own.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from sparkopt.blocks.tables import spark_schema
from sparkopt.errors import IncompatibleError, LostRankError
from sparkopt.launch import LocalCommunicator, ProcessLauncher, RankInfo
from sparkopt.launch.checkpoints import module_state
from sparkopt.shards.fields import Fields
from sparkopt.shards.store import write_store
from tests.deep.rows import parted
from tests.keras import networks
from tests.keras.test_trajectories import COLUMNS, KINDS, ON_TWO, RATE, batches_of, compiled, config, plain_keras

pytestmark = pytest.mark.usefixtures("minutes")

UNEVEN = [kind for kind in ON_TWO if kind != "regularised"]
"""What draws no random numbers by the position of rows, which padding moves in a batch of several processes."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store of 130 rows for each kind, whose last batch is padded, and one of 128, whose batches are full."""
    folder, found = tmp_path_factory.mktemp("kinds"), {}
    for name, rows in {"uneven": parted(COLUMNS, [70]), "even": parted(_first(128), [70])}.items():
        schema = spark_schema(rows.schema)
        found[name] = {
            kind: _store(rows, Fields.of(schema, features, label), folder / name / kind.replace(" ", "-"))
            for kind, (_, _, features, label) in KINDS.items()
        }
    return found


def _store(rows, fields, folder):
    return write_store(rows, fields, str(folder)).uri


def _first(rows):
    return {name: values[:rows] for name, values in COLUMNS.items()}


def trained(communicator, stores, kinds, changes):
    """Train these on JAX, one after the other; return the results, and the shapes that steps were traced with."""
    from sparkopt.deep.keras_backends import keras_on
    from sparkopt.deep.keras_recipe import KerasRecipe
    from sparkopt.deep.keras_worker import train_keras

    keras_on("jax").utils.set_random_seed(communicator.rank)  # computes, on this process's devices alone
    found = {}
    mesh, settings = changes.get("mesh", "process"), {k: v for k, v in changes.items() if k != "mesh"}
    for kind in kinds:
        recipe = KerasRecipe(KINDS[kind][0], KINDS[kind][1], "sgd", "jax", step_size=RATE, mesh=mesh)
        changed = dataclasses.replace(config(stores, kind), **settings)
        found[kind] = train_keras(communicator, changed, recipe)
    return found


def traces(communicator, stores, mesh, epochs=2):
    """Return the shapes with which the layer of a network is called, but for the rows that are tried first."""
    from sparkopt.deep.keras_recipe import KerasRecipe
    from sparkopt.deep.keras_worker import train_keras

    recipe = KerasRecipe(networks.counting, "multinomial", "adam", "jax", step_size=RATE, mesh=mesh)
    train_keras(communicator, dataclasses.replace(config(stores, "mlp"), epochs=epochs), recipe)
    return [shape for shape in networks.TRACES if isinstance(shape[0], int) and shape[0] != 2]


@pytest.fixture
def on_jax(backend):
    """JAX alone."""
    if backend != "jax":
        pytest.skip("a mesh is JAX's")


def devices(count, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--xla_force_host_platform_device_count={count}")


def close(found, losses, weights):
    np.testing.assert_allclose(found.losses, losses, atol=1e-5)
    state = module_state(found.weights)
    for name, expected in zip(sorted(state), weights, strict=True):
        np.testing.assert_allclose(state[name].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("count", "rows"), [(4, 16), (4, 17)], ids=["equal parts", "padded parts"])
def test_a_process_with_several_devices_goes_where_plain_keras_goes(keras, on_jax, stores, monkeypatch, count, rows):
    devices(count, monkeypatch)
    changes = {"batch_size": rows}
    found = ProcessLauncher(1).run(trained, stores["uneven"], list(KINDS), changes)[0]
    for kind, result in found.items():
        settings = dataclasses.replace(config(stores["uneven"], kind), **changes)
        close(result, *plain_keras(keras, settings, kind, 1))
        assert result.device == "4 x cpu"


def test_ranks_with_several_devices_sum_by_the_communicator(keras, on_jax, stores, monkeypatch):
    devices(2, monkeypatch)
    first, second = ProcessLauncher(2).run(trained, stores["uneven"], ["mlp", "regularised"], {})
    for kind, result in first.items():
        close(result, *plain_keras(keras, config(stores["uneven"], kind), kind, 2))
        assert result.losses == second[kind].losses
        assert result.sent > 0


def joined_keras(keras, settings, kind, ranks):
    """Train plain Keras on the joined rows of all ranks; return losses of steps and weights."""
    model, losses = compiled(keras, kind, settings.seed, 0), []
    for epoch in range(settings.epochs):
        for batches in zip(*[batches_of(settings, rank, ranks, epoch) for rank in range(ranks)], strict=True):
            kept = [(x if isinstance(x, list) else [x], y) for x, y, counted in batches if counted]
            inputs = [np.concatenate(parts) for parts in zip(*[x for x, _ in kept], strict=True)]
            target = np.concatenate([y for _, y in kept])
            losses.append(float(model.train_on_batch(inputs if len(inputs) > 1 else inputs[0], target)))
            model.reset_metrics()
    return losses, model.get_weights()


@pytest.mark.parametrize("count", [1, 2])
def test_a_mesh_of_all_ranks_goes_where_plain_keras_goes_on_the_joined_batches(
    keras, on_jax, stores, monkeypatch, count
):
    devices(count, monkeypatch)
    for name, kinds in {"uneven": UNEVEN, "even": ["regularised"]}.items():
        first, second = ProcessLauncher(2).run(trained, stores[name], kinds, {"mesh": "ranks"})
        for kind, result in first.items():
            close(result, *joined_keras(keras, config(stores[name], kind), kind, 2))
            np.testing.assert_array_equal(result.losses, second[kind].losses)
            assert result.sent == 0  # gradients are summed within the step
            assert result.device == f"{2 * count} x cpu"


def test_accumulated_and_clipped_steps_of_a_mesh_of_all_ranks(keras, on_jax, stores, monkeypatch):
    """Two batches a step are one of plain Keras of twice the rows; a loose bound on the norm changes nothing."""
    devices(2, monkeypatch)
    changes = {"accumulation": 2, "max_norm": 1e3}
    found = ProcessLauncher(2).run(trained, stores["even"], ["mlp"], {"mesh": "ranks", **changes})[0]["mlp"]
    one = ProcessLauncher(1).run(trained, stores["even"], ["mlp"], {**changes, "streams": 2})[0]["mlp"]
    np.testing.assert_allclose(found.losses, one.losses, atol=1e-6)
    ours, theirs = module_state(found.weights), module_state(one.weights)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name].numpy(), value.numpy(), atol=1e-6)


def test_a_mesh_of_all_ranks_goes_on_from_a_checkpoint(keras, on_jax, stores, monkeypatch, tmp_path):
    devices(2, monkeypatch)
    changes, kind = {"mesh": "ranks", "checkpoints": str(tmp_path)}, "regularised"
    whole = ProcessLauncher(2).run(trained, stores["even"], [kind], {"mesh": "ranks"})[0][kind]
    ProcessLauncher(2).run(trained, stores["even"], [kind], {**changes, "epochs": 1})
    rest = ProcessLauncher(2).run(trained, stores["even"], [kind], changes)[0][kind]
    assert rest.resumed == "epoch-000001-step-000000000"
    assert rest.losses == whole.losses
    assert rest.weights == whole.weights


def test_a_lost_process_ends_a_mesh_of_all_ranks(keras, on_jax, stores):
    with pytest.raises(LostRankError, match="rank 1|rank 0 lost another rank"):
        ProcessLauncher(2).run(lost, stores["uneven"])


def lost(communicator, stores):
    """Train for long; rank 1 kills itself meanwhile."""

    def kill():
        while not networks.TRACES:
            time.sleep(0.05)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    if communicator.rank == 1:
        threading.Thread(target=kill, daemon=True).start()
    return traces(communicator, stores, "ranks", 100_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"localSteps": 4}, "localSteps=4 needs mesh='process'"),
        ({"minProc": 1, "maxRestarts": 1}, "minProc=1 needs mesh='process'"),
    ],
)
def test_what_a_mesh_of_all_ranks_does_not_have(keras, on_jax, options, message):
    from sparkopt.deep import KerasEstimator

    made = KerasEstimator(module=networks.mlp, loss="multinomial", mesh="ranks", numProc=2, **options)
    with pytest.raises(IncompatibleError, match=message):
        made.fit((np.zeros((40, 5)), np.zeros(40)))


def test_an_estimator_with_a_mesh_of_all_ranks(keras, on_jax, monkeypatch):
    from sparkopt.deep import KerasEstimator

    devices(2, monkeypatch)
    made = KerasEstimator(module=networks.mlp, loss="multinomial", mesh="ranks", numProc=2, epochs=1, batchSize=20)
    made.progress = False
    rng = np.random.default_rng(0)
    receipt = made.fit((rng.normal(size=(80, 5)), rng.integers(0, 3, 80))).summary.receipt
    assert (receipt.processes, receipt.sent) == (2, 0)


def test_a_mesh_of_all_ranks_is_for_jax(keras, backend):
    from sparkopt.deep import KerasEstimator

    if backend == "jax":
        pytest.skip("it has one")
    with pytest.raises(IncompatibleError, match=f"mesh='ranks' is for backend='jax', and this one is '{backend}'"):
        KerasEstimator(module=networks.mlp, mesh="ranks").fit((np.zeros((40, 5)), np.zeros(40)))


@pytest.mark.parametrize(("ranks", "mesh"), [(1, "process"), (2, "ranks")])
def test_a_step_of_a_mesh_is_traced_once(keras, on_jax, stores, monkeypatch, ranks, mesh):
    devices(4, monkeypatch)
    assert ProcessLauncher(ranks).run(traces, stores["uneven"], mesh) == [[(32, 5)]] * ranks  # of two streams


def test_ranks_of_a_mesh_must_have_equally_many_devices(keras, on_jax, stores):
    with pytest.raises(IncompatibleError, match=r"equally many devices on each process; they have 1, 2\."):
        ProcessLauncher(2).run(unequal, stores["uneven"])


def unequal(communicator, stores):
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={communicator.rank + 1}"
    return trained(communicator, stores, ["mlp"], {"mesh": "ranks"})


def test_a_stranger_in_jaxs_runtime_is_found_out(keras, on_jax, monkeypatch):
    from jax.experimental import multihost_utils

    from sparkopt.deep.keras_mesh import prove_ranks

    monkeypatch.setattr(multihost_utils, "process_allgather", lambda found: found[None])
    prove_ranks(LocalCommunicator())
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda found: found[None] ^ 1)
    with pytest.raises(LostRankError, match="does not belong to this run answered rank 0 in place of rank 0"):
        prove_ranks(LocalCommunicator())


GPUS = [SimpleNamespace(platform="gpu", id=number) for number in range(4)]
CPUS = [SimpleNamespace(platform="cpu", id=number) for number in range(2)]


@pytest.mark.parametrize(
    ("shown", "info", "expected"),
    [
        (CPUS, RankInfo(1, 2, 1), [0, 1]),
        (GPUS, RankInfo(), [0, 1, 2, 3]),
        (GPUS, RankInfo(1, 2, 1), [1]),
        (GPUS, RankInfo(1, 2, 1, ("2", "3")), [2, 3]),
        (GPUS[:1], RankInfo(1, 2, 1, ("7",)), [0]),
        (GPUS[:2], RankInfo(0, 2, 0, ("6", "7")), [0, 1]),
    ],
    ids=["its CPUs", "all", "one each", "given", "the others are hidden", "several, the others are hidden"],
)
def test_a_rank_takes_its_own_devices(shown, info, expected):
    from sparkopt.deep.keras_mesh import own_devices

    assert [one.id for one in own_devices(shown, info)] == expected


def on_two_of_tensorflow(communicator, stores):
    import tensorflow as tf

    from sparkopt.deep.keras_backends import keras_on
    from sparkopt.deep.keras_recipe import KerasRecipe
    from sparkopt.deep.keras_worker import train_keras

    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], halves)
    keras_on("tensorflow")
    recipe = KerasRecipe(networks.mlp, "multinomial", "sgd", "tensorflow")
    return train_keras(communicator, config(stores, "mlp"), recipe)


def test_several_devices_of_tensorflow_are_refused(keras, backend, stores):
    if backend != "tensorflow":
        pytest.skip("these are TensorFlow's")
    with pytest.raises(IncompatibleError, match="TensorFlow shows 2 devices to this process, .* take backend='jax'"):
        ProcessLauncher(1).run(on_two_of_tensorflow, stores["uneven"])
