"""Plain English, as the section "Style" of CONTRIBUTING.md asks: expressions that readers stumbled over do not come back."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from wmhlib.running.files import ROOT

INSTEAD = {
    r"\bin flow\b|\bout flow\b|what flows (in|out)": "Input: … Output: …",
    r"\b(that|which) (is|are) (?-i:none)\b|\bmarks? that\b.*\bnone\b": "false positives, or: is not …",
    r"\b(at|of|by) one half\b": "the threshold 0.5",
    r"\bgo(es)? on\b": "resume, continue",
    r"\bstands? beside\b|\bstands? in the place of\b": "is next to",
    r"\banew\b": "again",
    r"\bmend(s|ing)?\b": "fix",
    r"\bdiary\b|\bdiaries\b|\bhouses?\b|\bdoors?\b": "log, package, module",
    r"\bshare of (the )?lesions\b": "fraction of lesions detected",
    r"\ba (loss|scan|subject)(?= (on average|each)\b)|\bfalse (positives|detections) a scan\b|\btrainings? a loss\b": "per",
    r"\bcannot be told (from|apart)\b": "do not differ significantly",
    r"\bnext to none\b|\bhardly any\b": "a number, or: few",
}
"""A pattern of an expression, and what to write."""


def passages() -> list[tuple[str, int, str]]:
    """File, line and text of everything that a person reads as prose."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.split("\0") if listed.returncode == 0 else []
    found = []
    for name in names:
        text = (ROOT / name).read_text(encoding="utf-8") if name.endswith((".md", ".py", ".j2", ".yaml")) else ""
        if name.endswith(".md") and name != "CONTRIBUTING.md" or name.endswith(".j2"):
            found += [(name, number, line) for number, line in enumerate(text.splitlines(), start=1)]
        elif name.startswith(("wmhlib/", "workflow/", "benchmarks/")) and name.endswith(".py"):
            nodes = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
            found += [(name, node.lineno, node.value) for node in nodes if isinstance(node.value, str)]
        elif name.startswith(("notebooks/", "config/")):
            lines = enumerate(text.splitlines(), start=1)
            found += [(name, number, line) for number, line in lines if "#" in line]
    return found


@pytest.mark.parametrize("pattern", INSTEAD)
def test_prose_is_plain(pattern):
    hits = [
        f"{name}:{number}: {match.group()}"
        for name, number, text in passages()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]
    assert not hits, f"Write instead: {INSTEAD[pattern]}\n" + "\n".join(hits)


def test_headings_are_nouns_or_claims():
    headings = {".md": re.compile(r"^#+ .*\?\s*$"), ".py": re.compile(r"^# #+ .*\?\s*$")}
    hits = [
        f"{name}:{number}: {line}"
        for name, number, line in passages()
        if (heading := headings.get(Path(name).suffix)) and heading.match(line)
    ]
    assert not hits, "\n".join(hits)
