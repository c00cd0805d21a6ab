"""``docs/settings.md``: every setting with its default, its names and what it is for."""

from __future__ import annotations

import inspect
import json

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from imgsvc.runtime.settings.names import PLAIN_NAMES
from imgsvc.runtime.settings.tree import Settings, fields

_HEAD = """# Settings

<!-- `make settings` writes this file. The texts are in imgsvc/runtime/settings/. -->

Each setting has a default. `config.toml` wins over it, `IMGSVC_<SECTION>__<KEY>` in the environment
wins over that (`IMGSVC_HTTP__PORT=8000`; lists are JSON: `IMGSVC_NET__ALLOW='["10.1.0.0/16"]'`), and
the plain names in the tables below win over both. Each name with `_FILE` behind it is the path of a
file that holds the value. `imgsvc config` prints what is in force, secrets masked.

`_s` are seconds, `_ms` milliseconds, `_bytes` bytes."""


def reference() -> str:
    """The document, as Markdown."""
    defaults = Settings().model_dump(mode="json")
    parts = [_HEAD]
    for section, field in Settings.model_fields.items():
        rows = [
            _row(section, key, each, defaults[section][key])
            for key, each in fields(section).items()
        ]
        about = _about(field)
        table = ["| Setting | Default | Plain name | Meaning |", "|---|---|---|---|", *rows]
        parts.append("\n".join([f"## `[{section}]`", "", about, "", *table]))
    return "\n\n".join(parts) + "\n"


def _about(section: FieldInfo) -> str:
    kind = section.annotation
    assert isinstance(kind, type)  # noqa: S101 - sections are models
    assert issubclass(kind, BaseModel)  # noqa: S101 - sections are models
    return inspect.cleandoc(kind.__doc__ or "")


def _row(section: str, key: str, field: FieldInfo, default: object) -> str:
    secret = "SecretStr" in str(field.annotation) and isinstance(default, str)
    shown = field.default.get_secret_value() if secret else default
    names = [f"`{name}`" for name, place in PLAIN_NAMES.items() if place == (section, key)]
    value = "unset" if shown is None else f"`{json.dumps(shown)}`"
    cells = (f"`{key}`", value, ", ".join(names), field.description or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
