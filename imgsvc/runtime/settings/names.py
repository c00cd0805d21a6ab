"""The names of settings in the environment: the plain ones, and what operators may have meant."""

from __future__ import annotations

import os

from imgsvc.runtime.settings import environment
from imgsvc.runtime.settings.environment import PREFIX
from imgsvc.runtime.settings.tree import Settings, fields

PLAIN_NAMES: dict[str, tuple[str, str]] = {
    "PORT": ("http", "port"),
    "MONGO_URI": ("mongo", "uri"),
    "MONGODB_URI": ("mongo", "uri"),
    "REDIS_URL": ("redis", "url"),
    "REDIS_HOST": ("redis", "host"),
    "REDIS_PORT": ("redis", "port"),
    "GCP_PROJECT_ID": ("gcs", "project"),
    "GCP_BUCKET_NAME": ("gcs", "bucket"),
    "GCP_KEY_BASE64": ("gcs", "key_base64"),
    "GOOGLE_APPLICATION_CREDENTIALS": ("gcs", "credentials_file"),
    "STORAGE_EMULATOR_HOST": ("gcs", "emulator_host"),
    "WEBHOOK_RETRY_ATTEMPTS": ("webhook", "attempts"),
    "WEBHOOK_RETRY_DELAY": ("webhook", "delay_ms"),
}
_NO_SETTINGS = frozenset({"IMGSVC_CONFIG", "IMGSVC_SERVER", "IMGSVC_KEY"})  # two: of the client


def name_of(section: str, key: str) -> str:
    """What an operator has to change: the strongest source that sets this."""
    variable = environment.name_of(os.environ, PLAIN_NAMES, (section, key))
    return variable or f"[{section}] {key}"


def is_setting(name: str) -> bool:
    """Whether a variable of this name is a setting, or names the file that holds one."""
    return name.upper().startswith(PREFIX) or name.removesuffix("_FILE") in PLAIN_NAMES


def overlooked() -> list[str]:
    """Variables that begin like settings and are none; somebody may have meant one."""
    return environment.overlooked(os.environ, _NO_SETTINGS)


def meant_by(overlooked_name: str) -> str:
    """The setting that such a variable was meant for, if that is clear; else the form of all."""
    for section in Settings.model_fields:
        for key in fields(section):
            if overlooked_name.upper() == f"{PREFIX}{section}_{key}".upper():
                return f"{PREFIX}{section}__{key}".upper()
    return f"{PREFIX}<SECTION>__<KEY>"
