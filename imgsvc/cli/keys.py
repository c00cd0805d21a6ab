"""``imgsvc keys``: who may come in while ``[auth] mode`` asks for keys."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from imgsvc.auth import credentials
from imgsvc.cli import operator
from imgsvc.cli.options import Config
from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Scope
from imgsvc.runtime import settings

if TYPE_CHECKING:
    from imgsvc.ledger import ApiKey

api_keys = typer.Typer(no_args_is_help=True, help="API keys: who may come in.")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:|@-]{0,99}")
_err = Console(stderr=True, highlight=False)


def _tenant(text: str) -> str:
    if not _TENANT.fullmatch(text):
        raise typer.BadParameter("write up to 100 letters, digits and . _ : | @ -")
    return text


Scopes = Annotated[
    list[Scope], typer.Option("--scope", help="What it allows; give it several times.")
]
_USUAL = [Scope.UPLOAD, Scope.READ]
Tenant = Annotated[
    str,
    typer.Argument(
        parser=_tenant, metavar="TENANT", help="Whose key: all keys of a tenant see its requests."
    ),
]


@api_keys.command()
def create(
    tenant: Tenant,
    scope: Scopes = _USUAL,
    days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="Until it expires; left out, it never does.")
    ] = None,
    config: Config = None,
) -> None:
    """Make a key and print it. It is shown this once."""
    loaded = settings.load(config)
    made = credentials.new()
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    operator.run(
        loaded,
        lambda parts: parts.ledger.api_keys.insert(
            made.id, made.digest, tenant, set(scope), expires_at
        ),
    )
    print(made)  # noqa: T201
    _err.print(
        f"For {tenant}, allows {', '.join(sorted(set(scope)))}, expires {_day(expires_at)}. "
        "Keep it now: it cannot be shown again.",
        soft_wrap=True,
        markup=False,
    )
    if not loaded.auth.takes_keys:
        _err.print(
            "[auth] mode says that keys are not asked for: IMGSVC_AUTH__MODE=keys.", markup=False
        )


@api_keys.command(name="list")
def list_all(
    tenant: Annotated[str | None, typer.Option(help="Only those of this tenant.")] = None,
    config: Config = None,
) -> None:
    """List keys, oldest first, without their secrets."""
    found = operator.run(
        settings.load(config), lambda parts: parts.ledger.api_keys.find_all(tenant)
    )
    table = Table("ID", "Tenant", "Scopes", "Created", "Expires", "Last used", "State")
    for key in found:
        table.add_row(
            key.id,
            key.tenant,
            " ".join(sorted(key.scopes)),
            _day(key.created_at),
            _day(key.expires_at),
            key.last_used_at.isoformat(" ", "minutes") if key.last_used_at else "never",
            _state(key),
        )
    Console().print(table if found else "There are none.")


@api_keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `imgsvc keys list` shows it.")],
    config: Config = None,
) -> None:
    """Revoke a key; this takes effect within seconds."""
    if not operator.run(settings.load(config), lambda parts: parts.ledger.api_keys.revoke(key_id)):
        raise ServiceError(ErrorCode.NOT_FOUND, f"There is no key {key_id}.")


def _day(at: datetime | None) -> str:
    return at.date().isoformat() if at else "never"


def _state(key: ApiKey) -> str:
    if key.revoked_at:
        return "revoked"
    return "expired" if key.expires_at and key.expires_at <= datetime.now(UTC) else "live"
