"""What a client may ask of the CSV report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from imgsvc.domain.model import Shape


class DownloadQuery(Shape):
    """Which report."""

    partial: Annotated[bool, Field(description="Also while the request is not finished.")] = False
    columns: Annotated[
        Literal["basic", "full"], Field(description="full adds error and size columns.")
    ] = "basic"
    only: Annotated[
        Literal["failed"] | None,
        Field(description="failed: only failed images, as a CSV that can be posted again."),
    ] = None
    bom: Annotated[
        bool | None,
        Field(description="Begin with a byte order mark, for Excel; left out, [http] csv_bom."),
    ] = None
