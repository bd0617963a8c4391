"""Registries: the class or function for each name that configurations use."""

from typing import Any


def register(registry: dict[str, Any], name: str, definition: Any) -> None:
    """Add a definition, or replace one of the same module, since a notebook cell may be run again.

    The function of a metric is its attribute `of`.

    Raises
    ------
    ValueError
        Another module defines the name; replacing it would change finished trainings.
    """
    homes = [getattr(entry, "of", entry).__module__ for entry in (registry.get(name, definition), definition)]
    if homes[0] != homes[1]:
        raise ValueError(f"The name {name!r} is used by {homes[0]}: choose another name.")
    registry[name] = definition
