"""The one registry class: names to components, built from a spec such as ``ridge:penalty=3:temperature=5``."""

import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from cache.errors import InputError, UnknownNameError

T = TypeVar("T", bound=type)
_TRUE_FALSE = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Registry:
    """Components of one kind by name. A duplicate name raises; an unknown name raises and suggests the nearest.

    A component's constructor parameters are its hyperparameters. One whose class sets ``argument`` takes
    everything after the colon as that parameter (``folder:PATH``); the others take ``name:key=value:key=value``.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._components: dict[str, type] = {}

    def register(self, name: str) -> Callable[[T], T]:
        def add(component: T) -> T:
            if name in self._components:
                raise ValueError(f"two {self.kind}s are named {name!r}")
            self._components[name] = component
            component.name = name  # type: ignore[attr-defined]
            return component

        return add

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._components))

    def get(self, name: str) -> type:
        """The component class of that name. Raises UnknownNameError, naming the nearest."""
        if name in self._components:
            return self._components[name]
        near = difflib.get_close_matches(name, self._components, n=1, cutoff=0.5)
        hint = f": did you mean {near[0]!r}?" if near else "."
        raise UnknownNameError(f"there is no {self.kind} named {name!r}{hint} Known: {', '.join(self)}")

    def parse(self, spec: str) -> tuple[type, dict[str, Any]]:
        """The component class and the constructor arguments that a spec names. Raises InputError."""
        name, _, rest = spec.partition(":")
        component = self.get(name)
        argument = getattr(component, "argument", None)
        if argument is not None:
            if not rest:
                raise InputError(f"{self.kind} {name!r} needs a value: write {name}:{argument.upper()}")
            return component, {argument: rest}
        pairs = [part.partition("=") for part in rest.split(":") if part]
        twice = [key for key, _, _ in pairs if sum(key == other for other, _, _ in pairs) > 1]
        if twice:
            raise InputError(f"{self.kind} {spec!r} says {twice[0]!r} twice")
        return component, {key: self._convert(component, key, text) for key, _, text in pairs}

    def build(self, spec: str, **overrides: Any) -> Any:
        """An instance made from a spec. Raises InputError (unknown name, parameter or value)."""
        component, arguments = self.parse(spec)
        try:
            return component(**{**overrides, **arguments})
        except ValueError as error:
            raise InputError(f"{self.kind} {spec!r}: {error}") from error

    def _convert(self, component: type, key: str, text: str) -> Any:
        parameters = inspect.signature(component).parameters
        if key not in parameters:
            known = ", ".join(parameters) or "none"
            raise InputError(f"{self.kind} {component.name!r} has no parameter {key!r}; it has: {known}")  # type: ignore[attr-defined]
        kinds = _scalar_types(typing.get_type_hints(component.__init__)[key])  # type: ignore[misc]
        for kind in kinds:
            if isinstance(kind, str):
                if text == kind:
                    return text
                continue
            try:
                value = _TRUE_FALSE[text.lower()] if kind is bool else kind(text)
                if isinstance(value, float) and not math.isfinite(value):
                    continue
                return value
            except (KeyError, ValueError):
                continue
        wanted = " or ".join(repr(kind) if isinstance(kind, str) else f"a valid {kind.__name__}" for kind in kinds)
        raise InputError(f"{self.kind} {component.name!r}: {key}={text!r} is not {wanted}")  # type: ignore[attr-defined]


def _scalar_types(hint: Any) -> list[type | str]:
    """What a text may be of an annotation such as ``float | Literal["fitted"] | None``: scalar types, and words."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return [kind for part in typing.get_args(hint) for kind in _scalar_types(part)]
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    return [hint] if hint in (bool, int, float, str) else []
