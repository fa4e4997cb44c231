"""What a checkpoint belongs to: a training's parts as texts that are equal in every process, code included.

Code is compared as bytecode, since what a notebook defines has no source elsewhere: comments and line numbers do not
count, another version of Python does. Of packages that are installed, names are enough.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from sparkopt.deep.config import TrainConfig
from sparkopt.deep.losses import loss_of
from sparkopt.deep.recipe import Recipe

__all__ = ["configuration", "differences"]


def configuration(config: TrainConfig, recipe: Recipe, module: nn.Module, optimizer: Any) -> dict[str, Any]:
    """Return a training's parts as JSON holds them: what decides on weights, but not how long training lasts.

    Parameters
    ----------
    config : TrainConfig
        Batches, order, precision, pipeline.
    recipe : Recipe
        Loss, schedule, initial weights.
    module, optimizer : nn.Module, Optimizer
        As they were built.
    """
    classes = {own: described(own) for own in {_class_of(one) for one in module.modules()}}
    parts = {
        f"module.{name}" if name else "module": f"{classes[_class_of(one)]}({_layer(one)})"
        for name, one in module.named_modules()
    }
    by_name = isinstance(recipe.scheduler, str)
    return {
        **config.course,
        **parts,
        "task": recipe.task_name,
        "loss": described(loss_of(recipe.loss) if recipe.step is None else recipe.step),
        "optimizer": _optimizer(optimizer),
        "scheduler": recipe.scheduler if by_name else f"{described(recipe.scheduler)} by {recipe.scheduler_interval}",
        **({} if recipe.output is None else {"output": recipe.output}),
        "initialModel": None if recipe.weights is None else _digest([recipe.weights]),
    }


def differences(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """Return what differs between two configurations, each with both values where these are short."""
    names = [name for name in {**then, **now} if now.get(name) != then.get(name)]
    inner = [name for name in names if name.startswith("module.")]
    shown = [name for name in names if name not in inner] + inner[:2]
    more = [f"{len(inner) - 2} more parts of the module"] if len(inner) > 2 else []
    return [_pair(name, then.get(name), now.get(name)) for name in sorted(shown)] + more


def _pair(name: str, then: Any, now: Any) -> str:
    texts = ["none" if value is None else str(value) for value in (then, now)]
    if any(len(text) > 120 for text in texts):
        return name
    return f"{name} (then {texts[0]}, now {texts[1]})"


def _class_of(module: nn.Module) -> type:
    """Return the class of a module, not the one that PyTorch makes of it where its parameters are divided."""
    own, base, *others = type(module).__mro__
    return others[0] if base.__name__ == "FSDPModule" else own


def _layer(module: nn.Module) -> str:
    """Return a module's settings, and the shapes of its own tensors."""
    shapes = [
        f"{name}{list(tensor.shape)}:{str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    ]
    return ", ".join([*_settings(vars(module)), *shapes])


def _optimizer(optimizer: torch.optim.Optimizer) -> str:
    groups = []
    for group in optimizer.param_groups:
        # the rate that a schedule began with; what it is now is part of the checkpoint
        plain = {**group, "lr": group.get("initial_lr", group["lr"]), "params": len(group["params"])}
        absent = ("initial_lr", "param_names")
        groups.append(
            ", ".join(_settings({key: value for key, value in plain.items() if key not in absent}, always=True))
        )
    return f"{described(type(optimizer))}({'; '.join(groups)})"


def _settings(values: Mapping[str, Any], always: bool = False) -> list[str]:
    """Return the plain ones of an object's attributes."""
    hidden = () if always else ("training",)
    kept = {name: value for name, value in values.items() if not name.startswith("_") and name not in hidden}
    return [f"{name}={described(value)}" for name, value in sorted(kept.items()) if always or _is_plain(value)]


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, (bool, int, float, str, types.FunctionType, functools.partial))


def described(value: Any, seen: set[int] | None = None) -> str:
    """Return a text that is equal for what is equal, in every process: no addresses, no order of sets.

    Classes and functions that were ``seen``, by their identity, are named only: code may call itself.
    """
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"tensor{list(value.shape)}#{_digest([content])}"
    if isinstance(value, nn.Module):
        tensors = [f"{name}={described(tensor)}" for name, tensor in value.named_buffers()]
        inner = [f"{described(type(one), seen)}({_layer(one)})" for one in value.modules()]
        return "; ".join([*inner, *tensors])
    if isinstance(value, functools.partial):
        named = (f"{name}={described(one, seen)}" for name, one in sorted(value.keywords.items()))
        given = [*(described(one, seen) for one in value.args), *named]
        return f"{described(value.func, seen)}({', '.join(given)})"
    if isinstance(value, types.MethodType):
        return f"{described(value.__func__, seen)} of {described(value.__self__, seen)}"
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return _named(value, seen)
    return _data(value, seen)


def _data(value: Any, seen: set[int]) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(sorted(f"{key!r}: {described(one, seen)}" for key, one in value.items())) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(described(one, seen) for one in value)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(described(one, seen) for one in value) + "]"
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return repr(value)
    return f"{described(type(value), seen)}({', '.join(_settings(getattr(value, '__dict__', {})))})"


def _named(value: Any, seen: set[int]) -> str:
    """Return the name of a class or function, and, if it is not of an installed package, a digest of its code."""
    name = getattr(value, "__qualname__", type(value).__name__)
    if _is_installed(value):
        return f"{value.__module__}.{name}"
    if id(value) in seen:
        return name  # without its module, which is __main__ where the file is run as a script
    seen.add(id(value))
    parts = _code_of_class(value, seen) if isinstance(value, type) else _code(value, seen)
    return f"{name}#{_digest(parts)}"


def _is_installed(value: Any) -> bool:
    """Whether a class or function is one of a package that is installed, or of Python's own."""
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    if module is None or module.__name__ == "__main__":
        return isinstance(value, types.BuiltinFunctionType)
    top = module.__name__.partition(".")[0]
    path = getattr(module, "__file__", None)
    return top == "sparkopt" or path is None or "site-packages" in path or top in sys.stdlib_module_names


def _code_of_class(value: type, seen: set[int]) -> list[Any]:
    parts: list[Any] = [described(base, seen) for base in value.__bases__]
    for name, member in sorted(vars(value).items()):
        found = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if isinstance(found, types.FunctionType):
            inner = inspect.unwrap(found)
            parts += [name, *_code(inner if isinstance(inner, types.FunctionType) else found, seen)]
        elif _is_plain(member) and not name.startswith("__"):
            parts += [name, described(member, seen)]
    return parts


def _code(function: Any, seen: set[int]) -> list[Any]:
    """Return a function's bytecode, its defaults, what it closes over, and the globals that it names."""
    code = function.__code__
    parts = [*_bytecode(code), described(function.__defaults__, seen), described(function.__kwdefaults__, seen)]
    contents = [_content(cell) for cell in function.__closure__ or ()]
    parts += [described(one, seen) for one in contents if one is not function]
    for name in sorted(_names(code)):
        found = function.__globals__.get(name)
        if _is_plain(found) or isinstance(found, (type, torch.Tensor, nn.Module)):
            parts += [name, described(found, seen)]
    return parts


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _bytecode(code: types.CodeType) -> Iterable[Any]:
    yield code.co_code
    yield [*code.co_names, *code.co_varnames]
    for constant in code.co_consts:
        yield list(_bytecode(constant)) if isinstance(constant, types.CodeType) else described(constant)


def _names(code: types.CodeType) -> set[str]:
    inner = [_names(one) for one in code.co_consts if isinstance(one, types.CodeType)]
    return set(code.co_names).union(*inner)


def _digest(parts: Iterable[Any]) -> str:
    found = hashlib.blake2b(digest_size=6)
    for part in parts:
        found.update(part if isinstance(part, bytes) else repr(part).encode())
        found.update(b"\0")
    return found.hexdigest()
