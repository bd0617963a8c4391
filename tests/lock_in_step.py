"""Say whether requirements.lock still answers pyproject.toml: resolve again, preferring what is pinned, and compare."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    options = re.search(r"^LOCK = \S+ (pip compile .*?)$", makefile, re.MULTILINE).group(1)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "requirements.lock"
        shutil.copy(ROOT / "requirements.lock", fresh)
        command = [
            Path(sys.executable).parent / "uv",
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
        sys.exit(f"requirements.lock is not in step with pyproject.toml ({', '.join(changed[:6])}): run `make lock`.")
    print(f"requirements.lock is in step with pyproject.toml: {len(pins[0])} pins.")


if __name__ == "__main__":
    main()
