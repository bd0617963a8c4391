"""Check that requirements.lock matches pyproject.toml and can be installed by hash on every supported Python.

Resolves again, preferring what is pinned, and compares; then asks for every pin, without fetching it.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).parent / "uv"
PYTHONS = ("3.11", "3.12", "3.13")


def main() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    options = re.search(r"^LOCK = \S+ (pip compile .*?)$", makefile, re.MULTILINE).group(1)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "requirements.lock"
        shutil.copy(ROOT / "requirements.lock", fresh)
        command = [
            UV,
            *options.replace('"make lock"', "make_lock").split(),
            "-o",
            fresh,
        ]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        pins = [
            re.findall(r"^[\w.-]+(?:\[.*?\])?==\S+.*(?= \\)", path.read_text(), re.MULTILINE)
            for path in (ROOT / "requirements.lock", fresh)
        ]
    if pins[0] != pins[1] or not pins[0]:
        changed = sorted(set(pins[0]) ^ set(pins[1]))
        sys.exit(f"requirements.lock does not match pyproject.toml ({', '.join(changed[:6])}): run `make lock`.")
    for python in PYTHONS:
        options = f"--quiet --dry-run --python-version {python} --require-hashes -r requirements.lock --target"
        command = [UV, "pip", "install", *options.split(), tempfile.gettempdir()]
        if subprocess.run(command, cwd=ROOT).returncode:
            sys.exit(
                f"requirements.lock cannot be installed on Python {python} (above): mend pyproject.toml, `make lock`."
            )
    conda = (ROOT / "environment.yml").read_text(encoding="utf-8")
    if "- -r requirements.lock" not in conda or not any(f"python={python}\n" in conda for python in PYTHONS):
        sys.exit(f"environment.yml does not install requirements.lock on one of Python {', '.join(PYTHONS)}.")
    print(f"requirements.lock matches pyproject.toml: {len(pins[0])} pins, for Python {', '.join(PYTHONS)}.")


if __name__ == "__main__":
    main()
