"""The import directions of the package hold (.importlinter)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_imports_run_one_way() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    root = Path(__file__).parent.parent
    result = subprocess.run([lint, "--no-cache"], cwd=root, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
