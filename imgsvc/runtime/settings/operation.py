"""``[retention]``, ``[log]`` and ``[dev]``: how long requests stay, what is logged, and what developers need."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from imgsvc.runtime.settings.section import Count, Section


class Retention(Section):
    """How long requests are kept, and how fast they are erased."""

    days: Annotated[float, Field(ge=0, le=36_500)] = Field(
        0, description="After that an ended request is erased, its objects too. 0: never."
    )
    erase_per_s: Count = Field(
        100, description="Objects and ledger entries, of all erasures together."
    )


class Log(Section):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="`debug`, `info`, `warning` or `error`; libraries never log more than `info`.",
    )
    format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="`json`, `console` or `auto`, which is `console` on a terminal and else "
        "`json`.",
    )


class Dev(Section):
    """What developers and tests of the service need."""

    data_dir: Path = Field(
        Path(".imgsvc"), description="Where the servers of `imgsvc dev` keep their data."
    )
    failpoint: str | None = Field(
        None, description="Where this process is to die, in tests of faults."
    )
