"""The code blocks of CONTRIBUTING.md run in order."""

import re

import pytest

from wmhlib.augmentations import AUGMENTATIONS
from wmhlib.features import FEATURES
from wmhlib.intake import phantom
from wmhlib.losses import LOSSES
from wmhlib.metrics import METRICS
from wmhlib.running.files import ROOT

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
