"""A training is repeated only if the meaning of code that it uses changes."""

import ast
import contextlib
import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from wmhlib import losses
from wmhlib.running import code
from wmhlib.running.files import ROOT
from wmhlib.running.keys import code_of
from wmhlib.study import open_study


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A copy of wmhlib that can be edited: digests are taken of it, while the code that runs stays."""
    copy = tmp_path / "wmhlib"
    shutil.copytree(ROOT / "wmhlib", copy, ignore=shutil.ignore_patterns("__pycache__"))

    def found(name):
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.origin:
            return spec
        return SimpleNamespace(origin=str(copy / Path(spec.origin).relative_to(ROOT / "wmhlib")))

    monkeypatch.setattr(code, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=found)))
    yield copy


UNTOUCHED: dict[str, str] = {}
"""The digests of the package as it is, the same before every test."""


@pytest.fixture
def digests(settings, write_config, package) -> Callable[[], dict[str, str]]:
    """The digest of the code of each loss's training, of the copy as it is now."""
    settings["losses"] = {"dice": {}, "tversky": {}, "generalized_dice": {}, "siamese": {}}
    settings["losses"] |= {"siamese_minmax": {"discriminator_rate": 0.1}, "dice_flipped": {"loss": "dice"}}
    settings["losses"]["dice_flipped"]["augmentation"] = {"flip_probability": 0.5}
    recipes = open_study(write_config(settings)).recipes

    def now():
        return {name: code_of(recipe) for name, recipe in recipes.items()}

    UNTOUCHED.update(UNTOUCHED or now())

    return now


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def edit(path: Path, name: str, line: str = "changed = 1") -> None:
    """Put a line before the body of a function, `name` or `Class.name`, of a module."""
    text = path.read_text(encoding="utf-8")
    body = ast.parse(text).body
    for part in name.split("."):
        node = next(node for node in body if getattr(node, "name", "") == part)
        body = node.body
    first = body[1] if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) else body[0]
    lines = text.splitlines(keepends=True)
    lines.insert(first.lineno - 1, " " * first.col_offset + line + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "\n\n" + text, encoding="utf-8")


def test_words_about_the_code_change_no_digest(package, digests):
    """Changed docstrings, comments, function annotations and layout do not change a digest."""
    before = dict(UNTOUCHED)
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                node.value.value = "Said otherwise."
            if isinstance(node, ast.arg):
                node.annotation = ast.Name("object")
            if isinstance(node, ast.FunctionDef):
                node.returns = None
        path.write_text("# A comment of no weight.\n" + ast.unparse(tree), encoding="utf-8")
    assert changed(before, digests()) == set()


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        ("losses.py", "DiceLoss.call", {"dice", "dice_flipped"}),
        ("losses.py", "TverskyLoss.call", {"tversky"}),
        ("siamese.py", "SiameseContentLoss.call", {"siamese", "siamese_minmax"}),
        ("siamese.py", "MinMaxLoss.__init__", {"siamese_minmax"}),
        ("minmax.py", "Tether.__call__", {"siamese_minmax"}),
        ("features.py", "VGG19.build", {"siamese", "siamese_minmax"}),
        ("features.py", "Application.build", set()),
        ("augmentations.py", "flip_probability", {"dice_flipped"}),
        ("augmentations.py", "noise_pct", set()),
        ("augmentations.py", "turned", "all"),
        ("generator.py", "dense_block", "all"),
        ("training.py", "run_epoch", "all"),
        ("training.py", "choose_slices", "all"),
        ("batches.py", "TrainingBatches.__getitem__", "all"),
        ("batches.py", "PlainBatches.__getitem__", "all"),  # validation, which chooses the epoch
        ("batches.py", "label_values", "all"),
        ("batches.py", "ReadAhead.__getitem__", "all"),
        ("learner.py", "WatchedAdam.apply", "all"),
        ("metrics.py", "hd95_mm", set()),
        ("inference.py", "probability", set()),
        ("slices.py", "box_of", set()),  # the slices themselves are compared
        ("settings.py", "checked", set()),  # and so are the settings
        ("running/files.py", "replacing", set()),
        ("report/figures.py", "by_centre", set()),
    ],
)
def test_a_change_of_meaning_changes_the_digests_of_what_uses_it(package, digests, module, name, expected):
    before = dict(UNTOUCHED)
    edit(package / module, name)
    assert changed(before, digests()) == (set(before) if expected == "all" else expected)


def test_what_is_added_beside_changes_no_digest(package, digests):
    before = dict(UNTOUCHED)
    new = 'class FocalLoss(Loss, name="focal"):\n    def call(self, y_true, y_pred):\n        return ops.mean(y_pred)\n'
    append(package / "losses.py", new)
    append(package / "metrics.py", '@metric("Oversegmentation")\ndef too_many(pair):\n    return 0.0\n')
    append(
        package / "augmentations.py",
        "@augmentation\ndef shift_px(image, reference, random, most):\n    return image, reference\n",
    )
    append(package / "features.py", 'class Edges(FeatureNetwork, name="edges"):\n    pass\n')
    append(package / "report" / "figures.py", "def pie(table):\n    return go.Figure()\n")
    (package / "entirely_new.py").write_text("answer = 42\n")
    assert changed(before, digests()) == set()


def test_a_constant_and_a_function_that_is_called_from_elsewhere_count(package, digests):
    before = dict(UNTOUCHED)
    path = package / "batches.py"
    text = path.read_text(encoding="utf-8")
    assert "SOFT_LESION = 0.1, 0.9" in text
    path.write_text(text.replace("SOFT_LESION = 0.1, 0.9", "SOFT_LESION = 0.2, 0.8"), encoding="utf-8")
    assert changed(before, digests()) == set(before)


def test_a_moved_definition_keeps_the_digest(package, digests):
    before = dict(UNTOUCHED)
    path = package / "losses.py"
    text = path.read_text(encoding="utf-8")
    node = next(node for node in ast.parse(text).body if getattr(node, "name", "") == "TverskyLoss")
    lines = text.splitlines(keepends=True)
    own = "".join(lines[node.lineno - 1 : node.end_lineno])
    path.write_text("".join(lines[: node.lineno - 1] + lines[node.end_lineno :]) + "\n\n" + own, encoding="utf-8")
    assert changed(before, digests()) == set()


def test_a_script_follows_from_its_own_code_and_what_it_uses(package, tmp_path):
    script = tmp_path / "notebook.py"

    def digest(text):
        script.write_text(text)
        return code.script_digest(script)

    text = "# %% [markdown]\n# Prose.\nfrom wmhlib import metrics\nprint(metrics.challenge_metrics('a', 'b'))\n"
    before = digest(text)
    assert digest(text.replace("Prose", "Other prose")) == before
    assert digest(text.replace("'b'", "'c'")) != before
    edit(package / "losses.py", "DiceLoss.call")
    assert digest(text) == before
    edit(package / "metrics.py", "challenge_metrics")
    assert digest(text) != before


@contextlib.contextmanager
def notebook():
    """A running IPython, as behind a notebook; the main module of the tests comes back after it."""
    from IPython.core.interactiveshell import InteractiveShell

    kept = {name: getattr(sys, name) for name in ("displayhook", "excepthook")}
    main = sys.modules["__main__"]
    shell = InteractiveShell.instance()
    try:
        yield shell
    finally:
        shell.history_manager.enabled = False
        InteractiveShell.clear_instance()
        sys.modules["__main__"] = main
        for name, value in kept.items():
            setattr(sys, name, value)


CELL = """
from keras import ops
from wmhlib import augmentations
from wmhlib.losses import Loss
from wmhlib.learner import PooledDice

WEIGHT = 3.0

def dearer(values):
    \"\"\"A helper of the cell.\"\"\"
    return values * WEIGHT

class Focal(Loss, name="focal"):
    \"\"\"A loss from a cell.\"\"\"

    def call(self, y_true, y_pred):
        return ops.mean(dearer(ops.square(y_true - y_pred)))
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("A loss from a cell.", "The same, in other words.", True),
        ("class Focal", "# a comment\nclass Focal", True),
        ("(self, y_true, y_pred)", "(self, y_true: object, y_pred) -> float", True),
        ("ops.square", "ops.abs", False),
        ("WEIGHT = 3.0", "WEIGHT = 4.0", False),
        ("values * WEIGHT", "values + WEIGHT", False),
    ],
)
def test_a_class_from_a_cell_has_a_digest_that_follows_its_code(registries, old, new, same):
    found = []
    assert old in CELL
    with notebook() as shell:
        for cell in (CELL, CELL.replace(old, new)):
            assert shell.run_cell(cell).success
            found.append(code.digest([losses.LOSSES["focal"]]))
    assert (found[0] == found[1]) == same


def test_a_class_from_a_cell_follows_what_it_uses_of_the_package(package, registries):
    cell = CELL.replace("ops.mean(dearer", "TverskyLoss()(y_true, y_pred) + ops.mean(dearer")
    cell = cell.replace("import Loss\n", "import Loss, TverskyLoss\n")
    with notebook() as shell:
        assert shell.run_cell(cell).success
        before = code.digest([losses.LOSSES["focal"]])
        edit(package / "losses.py", "DiceLoss.call")
        assert code.digest([losses.LOSSES["focal"]]) == before
        edit(package / "losses.py", "TverskyLoss.call")
        assert code.digest([losses.LOSSES["focal"]]) != before


def test_code_whose_text_is_kept_nowhere_is_refused_by_name(registries):
    names: dict = {}
    exec("class Typed:\n    def call(self):\n        return 1\n", names)
    names["Typed"].__module__ = "__main__"
    with pytest.raises(ValueError, match="Typed"):
        code.digest([names["Typed"]])
