"""Frozen dataclasses to JSON values and back, by their annotations. Used by the nouns of the ground floor."""

from __future__ import annotations

import types
import typing
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Returns ``value`` as dicts, lists and scalars. Fields with ``metadata={"json": False}`` are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value) if f.metadata.get("json", True)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def from_json(cls: type[T], value: Any) -> T:
    """Returns the dataclass ``cls`` built from what ``to_json`` gave.

    Raises:
        ValueError: a field is unknown or missing, or a value does not fit.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{cls.__name__}: expected an object, found {type(value).__name__}")
    kinds = typing.get_type_hints(cls)
    known = {f.name for f in fields(cls) if f.metadata.get("json", True)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - known)
    if unknown:
        raise ValueError(f"{cls.__name__}: expected fields {sorted(known)}, found {unknown}")
    try:
        return cls(**{name: _convert(kinds[name], item) for name, item in value.items()})
    except TypeError as error:
        raise ValueError(f"{cls.__name__}: {error}") from None


def _convert(kind: Any, value: Any) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (kind,) = [a for a in args if a is not type(None)]
        return _convert(kind, value)
    if origin is tuple:
        kinds = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else args
        return tuple(_convert(k, v) for k, v in zip(kinds, value, strict=True))
    if origin is dict:
        return {key: _convert(args[1], item) for key, item in value.items()}
    if is_dataclass(kind):
        return from_json(typing.cast(type, kind), value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if kind is float and isinstance(value, int):
        return float(value)
    return value
