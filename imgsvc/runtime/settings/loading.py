"""The settings from where they are written: the file, then the environment."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from imgsvc.runtime.settings import environment
from imgsvc.runtime.settings.environment import Place, Variable
from imgsvc.runtime.settings.errors import SettingsError, explain, shown
from imgsvc.runtime.settings.names import PLAIN_NAMES
from imgsvc.runtime.settings.tree import Settings, fields


def load(config: Path | None = None) -> Settings:
    """The settings of this process.

    Args:
        config: the file to read; left out, ``$IMGSVC_CONFIG`` or ``config.toml`` in the working
            directory if there is one.

    Raises:
        SettingsError: a value is wrong or a name unknown.
    """
    values = _file(config)
    in_file = frozenset(values)
    variables = _environment()
    for (section, key), variable in variables.items():
        below = values.setdefault(section, {})
        if isinstance(below, dict):  # else the file is wrong there, which validation reports
            below[key] = _parsed(section, key, variable)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = [explain(each, variables, in_file) for each in error.errors()]
        raise SettingsError("\n".join(problems)) from None


def _file(config: Path | None) -> dict[str, Any]:
    named = config or (Path(os.environ["IMGSVC_CONFIG"]) if "IMGSVC_CONFIG" in os.environ else None)
    path = named or Path("config.toml")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named is None:
            return {}
        raise SettingsError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None


def _environment() -> dict[Place, Variable]:
    sections = {name: fields(name) for name in Settings.model_fields}
    try:
        return environment.read(os.environ, PLAIN_NAMES, sections)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _parsed(section: str, key: str, variable: Variable) -> Any:
    """The text of a variable in the form that the setting's type is made from: lists are JSON."""
    field = fields(section).get(key)
    if field is None or "tuple" not in str(field.annotation):
        return variable.text
    try:
        return json.loads(variable.text)
    except ValueError:
        value = shown(key, variable.text, variable)
        raise SettingsError(
            f"{variable.name} = {value}: must be JSON, such as '[\"a\"]' for a list"
        ) from None
