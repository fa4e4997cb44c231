"""The recipe of training with Keras: what builds the model, loss, optimiser, schedule, by name or Keras's own."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from sparkopt.deep.config import OPTIMIZER_SETTINGS, TrainConfig
from sparkopt.deep.configuration import described
from sparkopt.deep.keras_backends import built, config_of, is_of_keras, keras_on
from sparkopt.deep.keras_losses import KerasLoss, named_loss
from sparkopt.errors import ParameterError
from sparkopt.optim import schedules
from sparkopt.typing import Schedule
from sparkopt.validation import OneOf, check
from sparkopt.values import dataclass

__all__ = ["KerasRecipe", "check_keras_recipe", "keras_configuration"]


@dataclass(frozen=True)
class KerasRecipe:
    """Model, loss, optimiser, schedule, metrics and loggers.

    Parameters
    ----------
    module : callable
        Builds the model: a function, or a class that derives from keras.Model.
    loss : keras.losses.Loss, callable or str
        See ``KerasLoss``.
    optimizer : callable, keras.optimizers.Optimizer or str
        What makes an optimiser; an optimiser, whose settings are taken; or a name.
    backend : str
        Keras's backend on the ranks.
    schedule : str, default "constant"
        A name in ``sparkopt.optim.schedules``, which sets the rate at every step.
    step_size : float or None, default None
        Learning rate of an optimiser that was named.
    metrics, loggers
        As in ``Recipe``.
    weights : bytes or None
        A warm start: weights by the order of variables, as safetensors.
    task : str or None
        What outputs mean; by default what the loss suggests.
    mesh : {"process", "ranks"}, default "process"
        Whose devices a step is compiled for, under JAX.
    """

    module: Callable[[], Any]
    loss: Any
    optimizer: Any
    backend: str
    schedule: str = "constant"
    step_size: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    loggers: tuple[Any, ...] = ()
    weights: bytes | None = field(default=None, repr=False)
    task: str | None = None
    mesh: str = "process"

    def is_joined(self, ranks: int) -> bool:
        """Whether a step is compiled for the devices of several ranks."""
        return self.mesh == "ranks" and ranks > 1

    @property
    def task_name(self) -> str:
        """What outputs mean."""
        return self.build_loss().task

    @property
    def ignored(self) -> int | None:
        """None: losses of Keras that ignore a class are refused."""
        return None

    def build_module(self, seed: int, prepare: Callable[[Any], Any]) -> Any:
        """Return the model, with its variables; every call with the same seed gives the same.

        Parameters
        ----------
        seed : int
            Of initial weights.
        prepare : callable
            Calls a model on a few rows, where it does not know the shape of its inputs.
        """
        keras_on(self.backend)

        def build() -> Any:
            model = self.module()
            if is_of_keras(model) and not model.built:
                prepare(model)
            return model

        return built(build, seed)

    def build_loss(self) -> KerasLoss:
        """Return the loss, one value a row."""
        keras_on(self.backend)
        return KerasLoss(self.loss, self.task)

    def build_optimizer(self) -> Any:
        """Return the optimiser.

        Raises
        ------
        ParameterError
            Where it is none, or does what the training loop does not know.
        """
        keras = keras_on(self.backend)
        if isinstance(self.optimizer, str):
            kind, settings, rate = OPTIMIZER_SETTINGS[self.optimizer]
            return getattr(keras.optimizers, kind)(learning_rate=self.step_size or rate, **settings)
        found = self.optimizer()
        if not isinstance(found, keras.optimizers.Optimizer):
            raise ParameterError(
                f"optimizer must make a keras.optimizers.Optimizer. It makes a {type(found).__name__}."
            )
        config = config_of(found)
        for name in ("use_ema", "loss_scale_factor", "inner_optimizer"):
            if config.get(name):
                raise ParameterError(f"optimizer has {name}={config[name]!r}, which KerasEstimator does not have.")
        if isinstance(config.get("learning_rate"), dict) and self.schedule != "constant":
            raise ParameterError(
                f"optimizer has a schedule of its own and stepSizeSchedule is {self.schedule!r}: choose one."
            )
        return found

    def build_schedule(self, rate: float, steps: int) -> Schedule | None:
        """Return the schedule over a run; None where the optimiser's own rate stays."""
        return None if self.schedule == "constant" else schedules.by_name(self.schedule, rate, max(1, steps))


def check_keras_recipe(recipe: KerasRecipe) -> KerasRecipe:
    """Return the recipe as processes are sent it; refuse what cannot be trained, before any job.

    Raises
    ------
    ParameterError
        Naming the part, and what it may be.
    """
    keras = keras_on(recipe.backend)
    if isinstance(recipe.module, keras.Layer):
        name = type(recipe.module).__name__
        raise ParameterError(
            f"module is a {name} that was built already. Give what builds it, since each process builds its own: a "
            "function with @sparkopt.deep.builder, or the class."
        )
    if not callable(recipe.module):
        raise ParameterError(f"module must be a function that builds a keras.Model. Got {recipe.module!r} instead.")
    if isinstance(recipe.loss, type):
        name = recipe.loss.__name__
        raise ParameterError(f"loss is the class {name}; give an instance of it, such as {name}().")
    if not callable(named_loss(recipe.loss)):
        raise ParameterError(f"loss must be one of Keras's, a function, or a name. Got {recipe.loss!r} instead.")
    recipe.build_loss()
    if isinstance(recipe.optimizer, str):
        check("optimizer", recipe.optimizer, OneOf(OPTIMIZER_SETTINGS))
    elif recipe.step_size is not None:
        raise ParameterError(
            "stepSize is for optimisers with a name; give an optimiser of Keras's its learning_rate."
        )
    return recipe


def optimizer_maker(optimizer: Any) -> Any:
    """Return what makes an optimiser like this one, where it is one: processes are sent settings, not variables."""
    if hasattr(optimizer, "get_config") and not isinstance(optimizer, type):
        return functools.partial(type(optimizer).from_config, config_of(optimizer))
    if not (isinstance(optimizer, str) or callable(optimizer)):
        raise ParameterError(
            f"optimizer must be one of Keras's, make one, or be a name. Got a {type(optimizer).__name__} instead."
        )
    return optimizer


def keras_configuration(config: TrainConfig, recipe: KerasRecipe, model: Any, optimizer: Any) -> dict[str, Any]:
    """Return what a checkpoint belongs to, as ``sparkopt.deep.configuration.configuration`` does for PyTorch."""
    layers = [one for one in model._flatten_layers() if not hasattr(one, "layers")]
    loss = named_loss(recipe.loss)
    return {
        **config.course,
        "module": described(recipe.module),
        **{f"module.{number}": _layer(one) for number, one in enumerate(layers)},
        "task": recipe.task_name,
        "loss": _object(loss) if hasattr(loss, "get_config") else described(loss),
        "optimizer": _object(optimizer),
        "scheduler": recipe.schedule,
        "initialModel": None if recipe.weights is None else described(recipe.weights),
        **({} if recipe.mesh == "process" else {"mesh": recipe.mesh}),
    }


def _layer(layer: Any) -> str:
    shapes = [f"{one.name}{list(one.shape)}:{one.dtype}" for one in layer.weights]
    return ", ".join([_object(layer), *shapes])


def _object(value: Any) -> str:
    """Return class and settings of an object of Keras, without the names that count what a process has made."""
    try:
        config = json.dumps(_nameless(config_of(value)), sort_keys=True, default=described)
    except NotImplementedError:  # a layer whose constructor Keras does not know
        config = ""
    return f"{described(type(value))}({config})"


def _nameless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nameless(one) for key, one in value.items() if key != "name"}
    return [_nameless(one) for one in value] if isinstance(value, (list, tuple)) else value
