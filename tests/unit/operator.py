"""What an operator does with settings, and what comes of it."""

from __future__ import annotations

import pytest

from imgsvc.runtime.settings import Settings, SettingsError, load


def with_env(**variables: str) -> Settings:
    """The settings under these variables."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return load()


def complaint(**variables: str) -> str:
    """What is said against these variables."""
    with pytest.raises(SettingsError) as caught:
        with_env(**variables)
    return str(caught.value)
