"""A digest of the code that a result depends on.

It covers all functions, classes and constants of `wmhlib` that are reached through the names used in a definition, and
classes and functions from notebook cells. Docstrings, comments, annotations, formatting and the module of a definition
are ignored, so that only a change of meaning changes a digest. Files are read from disk and not imported.
"""

import ast
import functools
import hashlib
import importlib.util
import inspect
import linecache
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

Place = tuple[str, str]
"""A module and the name of a definition in it."""


def digest(roots: Iterable[Place | Callable], leave_out: tuple[str, ...] = ()) -> str:
    """A digest of everything that these places, classes or functions use.

    Modules or `module.name` that begin with an entry of `leave_out` are not followed.
    """
    texts: set[str] = set()
    places: list[Place] = []
    for root in roots:
        if isinstance(root, tuple):
            places.append(root)
        else:
            places_used, own = _of_object(root)
            places += places_used
            texts |= own
    return _hashed(texts, places, leave_out)


def script_digest(script: str | Path, leave_out: tuple[str, ...] = ()) -> str:
    """A digest of a notebook's script: its own code and everything of `wmhlib` that it uses."""
    tree = _bare(ast.parse(Path(script).read_text(encoding="utf-8")))
    imports = dict(_imports(tree))
    places = [place for node in tree.body for place in _used(node, imports, None)]
    return _hashed({ast.unparse(tree)}, places, leave_out)


def _hashed(texts: set[str], places: list[Place], leave_out: tuple[str, ...]) -> str:
    """A digest of texts and of all definitions that these places use; their order does not matter."""
    texts = texts | {ast.unparse(node) for _, node in _followed(places, leave_out)}
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()


def used(roots: Iterable[Place], leave_out: tuple[str, ...] = ()) -> set[Place]:
    """The places of all definitions that these use, including themselves."""
    return {place for place, _ in _followed(list(roots), leave_out)}


def _module(name: str) -> tuple[dict[str, ast.stmt], dict[str, Place]]:
    """The definitions of a module of wmhlib by name, and its imports from wmhlib, from the current file."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.origin:
        return {}, {}
    return _parsed(spec.origin, Path(spec.origin).stat().st_mtime_ns)


@functools.lru_cache(256)
def _parsed(path: str, changed: int) -> tuple[dict[str, ast.stmt], dict[str, Place]]:
    tree = _bare(ast.parse(Path(path).read_text(encoding="utf-8")))
    definitions: dict[str, ast.stmt] = {}
    for statement in tree.body:
        for bound in _bound(statement):
            definitions[bound] = statement
    return definitions, dict(_imports(tree))


def _bound(statement: ast.stmt) -> list[str]:
    """The names defined by a top-level statement of a module."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return [
        part.id
        for target in targets
        if isinstance(target, ast.Name | ast.Tuple)  # LOSSES["x"] = … defines no LOSSES
        for part in ast.walk(target)
        if isinstance(part, ast.Name)
    ]


def _imports(tree: ast.Module) -> Iterator[tuple[str, Place]]:
    """The place of each name imported from wmhlib; a module is a place with an empty name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "wmhlib":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = _is_module(inner)
                yield alias.asname or alias.name, (inner, "") if is_module else (str(node.module), alias.name)


@functools.cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _used(node: ast.AST, imports: dict[str, Place], module: str | None) -> Iterator[Place]:
    """The places that code refers to: names of its own module, and imported names."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            target = imports.get(part.value.id)
            if target and not target[1]:
                yield target[0], part.attr
        if isinstance(part, ast.Name):
            target = imports.get(part.id)
            if target and target[1]:
                yield target
            elif module and not target:
                yield module, part.id


def _followed(places: list[Place], leave_out: tuple[str, ...]) -> Iterator[tuple[Place, ast.stmt]]:
    """Every definition that these places use, including themselves, each once."""
    waiting, seen = list(places), set()
    while waiting:
        place = waiting.pop()
        if place in seen or ".".join(place).startswith(leave_out or ("\0",)):
            continue
        seen.add(place)
        definitions, imports = _module(place[0])
        if place[1] in definitions:
            yield place, definitions[place[1]]
            waiting += _used(definitions[place[1]], imports, place[0])
        elif place[1] in imports:
            waiting.append(imports[place[1]])


def _bare(tree: ast.Module) -> ast.Module:
    """Code without docstrings, other string statements, annotations, and titles and colours of classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.ClassDef):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in ("title", "colour")]
        if isinstance(getattr(node, "body", None), list):
            kept = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            node.body = kept or [ast.Pass()]
    return tree


def _of_object(target: Callable) -> tuple[list[Place], set[str]]:
    """The places that a class or function uses, and the code of definitions in a notebook cell or a user's own file."""
    places: list[Place] = []
    texts: set[str] = set()
    waiting, seen = [inspect.unwrap(getattr(target, "func", target))], set()
    while waiting:
        definition = waiting.pop()
        if definition in seen or not (inspect.isclass(definition) or inspect.isfunction(definition)):
            continue
        seen.add(definition)
        if definition.__module__.split(".")[0] == "wmhlib":
            places.append((definition.__module__, definition.__qualname__))
        elif _is_own(definition.__module__):
            node = _source(definition)
            texts.add(ast.unparse(node))
            waiting += definition.__mro__[1:] if inspect.isclass(definition) else ()
            for value, name in _global_values(node, vars(sys.modules[definition.__module__])):
                if inspect.isclass(value) or inspect.isfunction(value):
                    waiting.append(value)
                elif not isinstance(value, types.ModuleType):
                    texts.add(f"{name} = {value.tobytes() if hasattr(value, 'tobytes') else value!r}")
    return places, texts


def _is_own(module: str) -> bool:
    """Whether a module is a notebook or a user's own file, not an installed package or part of Python."""
    place = getattr(sys.modules.get(module), "__file__", None)
    return module == "__main__" or bool(place and not Path(place).is_relative_to(sys.prefix) and not _is_python(place))


def _is_python(place: str) -> bool:
    return Path(place).is_relative_to(sys.base_prefix) or "site-packages" in Path(place).parts


def _global_values(node: ast.AST, known: dict) -> Iterator[tuple[Any, str]]:
    """The values of the global names that code uses; for modules, of the attributes used."""
    local = {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
    local |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load)}
    for part in ast.walk(node):
        names: list[str] = []
        while isinstance(part, ast.Attribute):
            names, part = [part.attr, *names], part.value
        if not isinstance(part, ast.Name) or part.id in local or part.id not in known:
            continue
        value, text = known[part.id], part.id
        for name in names:
            if not isinstance(value, types.ModuleType) or not hasattr(value, name):
                break
            value, text = getattr(value, name), f"{text}.{name}"
        yield value, text


def _source(target: Callable) -> ast.stmt:
    """The definition of a class or function from its file or notebook cell.

    Raises
    ------
    ValueError
        The source is not available, for example of a class typed into a Python prompt, or a class has no method.
    """
    functions = [target] if inspect.isfunction(target) else [f for f in vars(target).values() if inspect.isfunction(f)]
    for function in functions:
        lines = linecache.getlines(function.__code__.co_filename)
        for node in ast.walk(_bare(ast.parse("".join(lines)))) if lines else ():
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == target.__name__:
                return node
    raise ValueError(
        f"The source of {target.__name__} is not available: define it with def, or as a class with a method, in a "
        "notebook cell or file."
    )
