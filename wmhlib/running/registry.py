"""Registries: names that configurations use, and the class or function that each stands for."""

from typing import Any


def register(registry: dict[str, Any], name: str, definition: Any) -> None:
    """Add a definition (a metric carries its function as `of`), or replace an earlier one of the same module: a cell may be run again.

    Raises
    ------
    ValueError
        Another module holds the name: replacing it would change trainings that are done.
    """
    homes = [getattr(entry, "of", entry).__module__ for entry in (registry.get(name, definition), definition)]
    if homes[0] != homes[1]:
        raise ValueError(f"The name {name!r} is taken by {homes[0]}: choose another one.")
    registry[name] = definition
