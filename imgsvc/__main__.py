"""The ``imgsvc`` command; a client's part of it starts without loading the service."""

from __future__ import annotations

import sys

from imgsvc.client import client


def main() -> None:
    """Run what the arguments name."""
    names = {each.callback.__name__ for each in client.registered_commands if each.callback}
    if names.intersection(sys.argv[1:2]):
        client(prog_name="imgsvc")
    else:
        from imgsvc.cli.main import main as run  # noqa: PLC0415 - it takes a second to load

        run()


if __name__ == "__main__":
    main()
