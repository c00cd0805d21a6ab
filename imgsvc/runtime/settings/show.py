"""The settings in force, as ``imgsvc config`` prints them."""

from __future__ import annotations

import json

from pydantic import BaseModel

from imgsvc.runtime.settings.tree import Settings


def show(settings: Settings) -> str:
    """The settings as TOML-like text, secrets masked."""
    lines = []
    for section in Settings.model_fields:
        lines.append(f"[{section}]")
        values: BaseModel = getattr(settings, section)
        for key, value in values.model_dump(mode="json").items():
            # A list of secrets, a path, a network: all are JSON by now.
            lines.append(f"{key} = {json.dumps(value)}" if value is not None else f"# {key} unset")
        lines.append("")
    return "\n".join(lines).rstrip()
