"""What several unit tests start from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imgsvc.runtime.settings import is_setting


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment that says nothing, and a folder without a config.toml."""
    for name in filter(is_setting, list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
