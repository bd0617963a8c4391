"""All public functions accept paths as text and as `Path`."""

import ast
import importlib
import inspect
import pkgutil
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import wmhlib
from wmhlib import slices
from wmhlib.cohort import read_folder
from wmhlib.intake import bids, nifti
from wmhlib.intake.scans import read_flair
from wmhlib.running import files
from wmhlib.running.checkpoints import Checkpoints
from wmhlib.study import Study, open_study


def functions() -> Iterator[tuple[str, typing.Callable]]:
    """Every public function, constructor and method that the package defines, by its whole name."""
    for module in [importlib.import_module(found.name) for found in pkgutil.walk_packages(wmhlib.__path__, "wmhlib.")]:
        own = [(name, one) for name, one in vars(module).items() if getattr(one, "__module__", "") == module.__name__]
        for name, one in own:
            inner = vars(one).items() if inspect.isclass(one) and one is not Study else [("", one)]
            for method, function in inner:  # a Study is made by `open_study`
                whole = ".".join(filter(None, [module.__name__, name, method]))
                if inspect.isfunction(function) and "._" not in whole.replace(".__init__", ""):
                    yield whole, inspect.unwrap(function)


def paths_of(function: typing.Callable) -> dict[str, str]:
    """The parameters that are paths, or hold some, and how they are annotated."""
    parameters = inspect.signature(function).parameters
    return {name: str(one.annotation) for name, one in parameters.items() if "Path" in str(one.annotation)}


AMONG_READERS = ("wmhlib.intake.folders.refuse_twice", "wmhlib.intake.roles.refuse_repeated")
"""Their paths are keys that another reader made."""

TAKE_PATHS = {name: function for name, function in functions() if paths_of(function) and name not in AMONG_READERS}


def test_the_functions_that_take_paths_are_found():
    assert {"wmhlib.inference.load_generator", "wmhlib.study.open_study", "wmhlib.apply.segment.segment_scans"} <= set(
        TAKE_PATHS
    )
    assert len(TAKE_PATHS) > 50


@pytest.mark.parametrize("name", TAKE_PATHS)
def test_a_path_may_be_text(name):
    """By annotation, and by use: a parameter that may be text is made a `Path` before it is used as one."""
    function, paths = TAKE_PATHS[name], paths_of(TAKE_PATHS[name])
    assert all("str |" in annotation for annotation in paths.values()), paths
    lines, first = inspect.getsourcelines(function)
    [definition] = ast.parse(textwrap.dedent("".join(lines))).body
    nodes = list(ast.walk(definition))
    made = {target.id for node in nodes if isinstance(node, ast.Assign) for target in names_in(node.targets)}
    alone = {
        name for name, annotation in paths.items() if annotation.startswith("str |") and "nibabel" not in annotation
    }
    for node in nodes:
        used = node.value if isinstance(node, ast.Attribute) else getattr(node, "left", None)
        if isinstance(used, ast.Name) and used.id in alone - made:
            assert not isinstance(node, ast.Attribute | ast.BinOp), (
                f"line {first + used.lineno - 1}: {used.id} is no Path"
            )


def names_in(targets: list[ast.expr]) -> list[ast.Name]:
    return [node for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def test_both_kinds_of_path_lead_to_the_same_file(challenge, tmp_path, settings, write_config):
    flair = next(challenge.rglob("FLAIR.nii.gz"))
    image, cohort = nifti.read_scan(flair), read_folder(challenge).assign(split="training")[:2]
    for number, kind in enumerate((str, Path)):
        place = kind(tmp_path / str(number) / "x")
        files.write_json(place, {"a": 1})
        files.write_table(kind(f"{place}.csv"), pd.DataFrame({"subject": ["01"]}))
        assert files.read_table(kind(f"{place}.csv")).subject[0] == "01"
        with files.alone(place), files.writing(place):
            pass
        nifti.save_image(image, kind(f"{place}.nii.gz"))
        assert nifti.read_scan(kind(f"{place}.nii.gz")).shape == read_flair(kind(flair)).shape
        slices.write_slices(cohort, kind(f"{place}-slices"), 16)
        assert len(slices.open_slices(kind(f"{place}-slices"))[2]) == 18
        assert Checkpoints(place).state(1).name == "epoch-1.npz"
        assert open_study(kind(write_config(settings)), kind(challenge)).data == challenge
        assert bids.write_derivative(kind(f"{place}-bids"), "1", image, "scan", "network").is_file()
        assert len(read_folder(kind(challenge))) == 10 and np.array_equal(cohort.subject, ["0", "1"])
