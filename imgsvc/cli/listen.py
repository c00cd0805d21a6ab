"""``imgsvc listen``: receives webhooks on a developer's machine, checks and shows each."""

from __future__ import annotations

from pathlib import Path

from imgsvc.cli import process
from imgsvc.cli.webhook_receiver import receive
from imgsvc.runtime import settings
from imgsvc.runtime.settings import SettingsError


def listen(port: int, secret: str | None, config: Path | None) -> None:
    """Receive webhooks until Ctrl-C.

    Args:
        port: where; 0 for any free one.
        secret: that signed them; left out, those of the settings.
        config: the settings file, if one was named.

    Raises:
        SettingsError: a setting is wrong, or the secret.
        OSError: the port is taken.
    """
    secrets = [s.get_secret_value() for s in settings.load(config).webhook.secrets]
    if secret:
        try:
            secrets = [settings.check_webhook_secret(secret)]
        except ValueError as error:
            raise SettingsError(f"--secret: {error}") from None

    def show(text: str) -> None:
        print(text, flush=True)  # noqa: T201

    process.run(lambda stop: receive(port, secrets, show, stop))
