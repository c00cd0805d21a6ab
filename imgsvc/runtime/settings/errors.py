"""What is wrong with settings, in the operator's words: which name to change, and to what."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import ErrorDetails

from imgsvc.runtime import redaction
from imgsvc.runtime.settings.environment import Place, Variable
from imgsvc.runtime.settings.tree import fields

_SECRET_KEYS = ("secret", "password", "key_base64", "uri")


class SettingsError(Exception):
    """The settings cannot be used; the message names each setting, its value and the remedy."""


def explain(
    error: ErrorDetails, variables: Mapping[Place, Variable], in_file: frozenset[str]
) -> str:
    """One line: which name to change, what it holds, what is allowed.

    Args:
        error: as pydantic reports it.
        variables: what the environment sets.
        in_file: the sections that the file has.
    """
    section, key = (*map(str, error["loc"]), "", "")[:2]
    name = _name(section, key, variables, in_file)
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such setting; known here: {', '.join(fields(section))}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if not section:
        return message
    return f"{name} = {shown(key, error['input'], variables.get((section, key)))}: {message}"


def shown(key: str, value: object, variable: Variable | None) -> str:
    """The value as an error may show it; a whole section or a file may hold a secret anywhere."""
    secret = key == "url" or any(word in key.lower() for word in _SECRET_KEYS)
    secret = secret or bool(variable and variable.from_file)
    plain = key and not secret and isinstance(value, str | int | float)
    return redaction.of_library(repr(value)) if plain else "***"


def _name(
    section: str, key: str, variables: Mapping[Place, Variable], in_file: frozenset[str]
) -> str:
    """What the operator has to change: the strongest source that sets something here."""
    if variable := variables.get((section, key)):
        return variable.name
    place = f"[{section}] {key}".rstrip()
    return f"config.toml {place}" if section in in_file else place
