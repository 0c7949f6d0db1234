"""The import directions of the package hold (.importlinter)."""

from __future__ import annotations

from pathlib import Path

from importlinter.cli import lint_imports


def test_imports_run_one_way(capsys):
    config = Path(__file__).parent.parent / ".importlinter"
    code = lint_imports(config_filename=str(config), no_cache=True)
    assert code == 0, capsys.readouterr().out
