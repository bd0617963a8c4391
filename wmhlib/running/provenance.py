"""What made a result: commit, code, versions, machine; nothing that names a person or host."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess

from wmhlib.running.files import ROOT

PACKAGES = {"keras", "tensorflow", "jax", "numpy", "scipy", "scikit-image", "nibabel", "pandas", "statsmodels"}
PACKAGES |= {"connected-components-3d"}


def code_sha256() -> str:
    """A digest of wmhlib and notebooks."""
    sources = [*ROOT.glob("wmhlib/**/*.py"), *ROOT.glob("wmhlib/**/*.csv"), *ROOT.glob("notebooks/*.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()


def provenance() -> dict:
    """What a reader needs to make a result again.

    `code` is a digest of wmhlib and notebooks, which holds where a commit does not: uncommitted changes, no git.
    """
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    installed = {found.name.lower(): found.version for found in importlib.metadata.distributions() if found.name}
    return {
        "commit": commit.stdout.strip() or "not a git checkout",
        "code": code_sha256(),
        "python": platform.python_version(),
        "versions": {name: installed[name] for name in sorted(PACKAGES) if name in installed},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
