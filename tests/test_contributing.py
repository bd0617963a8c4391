"""The code blocks of CONTRIBUTING.md run in order."""

import re

import pytest

from wmhlib.augmentations import AUGMENTATIONS
from wmhlib.features import FEATURES
from wmhlib.intake import phantom
from wmhlib.losses import LOSSES
from wmhlib.metrics import METRICS
from wmhlib.running.files import ROOT
from wmhlib.study import open_study

GUIDE = ROOT / "CONTRIBUTING.md"


@pytest.mark.usefixtures("registries")
def test_the_guides_run(monkeypatch):
    monkeypatch.setattr(phantom, "CENTRES", phantom.CENTRES)  # as it was, once the test is over
    text = GUIDE.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    headings = re.findall(r"^## Add a[n]? (.*)$", text, re.MULTILINE)
    assert headings == ["loss", "feature network", "augmentation", "metric", "centre"] and len(blocks) >= len(headings)
    namespace: dict = {"__name__": "contributing"}
    for block in blocks:
        line = text.count("\n", 0, block.start(1))  # an error then names the line of the guide
        exec(compile("\n" * line + block.group(1), str(GUIDE), "exec"), namespace)
    assert "focal" in LOSSES and "two_scales" in FEATURES
    assert "shift_px" in AUGMENTATIONS and "lesion_precision" in METRICS


def test_every_decision_has_a_page_a_line_in_the_index_and_no_other_number_is_cited():
    pages = {path.stem for path in (ROOT / "docs" / "decisions").glob("D-*.md")}
    index = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| \[(D-\d{3})\]\(decisions/\1\.md\)", index, re.MULTILINE)) == sorted(pages)
    texts = [
        path
        for folder in ("wmhlib", "notebooks", "config", "docs", "benchmarks")
        for path in (ROOT / folder).rglob("*.*")
    ]
    texts = [
        path for path in texts if path.suffix in (".py", ".yaml", ".md", ".j2", ".js") and ".ipynb" not in path.name
    ]
    for path in (*texts, *ROOT.glob("*.md")):
        assert set(re.findall(r"\bD-\d{3}\b", path.read_text(encoding="utf-8"))) <= pages, path


def test_no_training_from_the_bundled_network_is_tested_on_heads_that_it_has_seen():
    bundled = open_study(ROOT / "config" / "transfer.yaml").config.data.phantom
    for path in (ROOT / "config").glob("*.yaml"):
        study = open_study(path)
        starts = {recipe.training.start for recipe in study.recipes.values()}
        if "bundled" in starts and path.stem != "tune":  # which has no synthetic heads: it requires DATA
            assert study.config.data.phantom.seed != bundled.seed, path
