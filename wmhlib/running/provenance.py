"""Provenance of a result: commit, code, versions, machine; no names of persons or hosts."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess

from wmhlib.running.files import ROOT

PACKAGES = {"keras", "tensorflow", "jax", "numpy", "scipy", "scikit-image", "nibabel", "pandas", "statsmodels"}
PACKAGES |= {"connected-components-3d"}


def code_sha256() -> str:
    """SHA-256 of all code of wmhlib and the notebooks, without what was measured of the bundled networks."""
    sources = [*ROOT.glob("wmhlib/**/*.py"), *ROOT.glob("wmhlib/**/*.csv"), *ROOT.glob("notebooks/*.py")]
    sources = [path for path in sources if path.parent != ROOT / "wmhlib" / "network"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()


def provenance() -> dict:
    """The information needed to reproduce a result.

    `code` is a digest of wmhlib and the notebooks. Unlike `commit`, it is valid with uncommitted changes and without
    git.
    """
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    installed = {
        package.name.lower(): package.version for package in importlib.metadata.distributions() if package.name
    }
    return {
        "commit": commit.stdout.strip() or "not a git checkout",
        "code": code_sha256(),
        "python": platform.python_version(),
        "versions": {name: installed[name] for name in sorted(PACKAGES) if name in installed},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
