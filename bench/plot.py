"""The plot: where the CPU of an image goes, beside what the bare codec takes."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from bench.figures import Figure

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "imgsvc"  # the same figures make the same file

_PARTS = ("workers", "parent", "mongo", "redis", "gcs", "origin")


def draw(figures: list[Figure], file: Path) -> None:
    """Draw what case ``overhead`` found; nothing without it."""
    values = {figure.name: figure.value for figure in figures if figure.case == "overhead"}
    sizes = [name.partition(":")[0] for name in values if name.endswith("bare codec CPU")]
    if not sizes:
        return
    _, axes = plt.subplots(1, len(sizes), figsize=(3.2 * len(sizes), 4), squeeze=False)
    for axis, size in zip(axes[0], sizes, strict=True):
        axis.bar("bare codec", values[f"{size}: CPU of an image, bare codec"], color="0.6")
        bottom = 0.0
        for number, part in enumerate(_PARTS):
            height = values[f"{size}: CPU of an image, {part}"]
            axis.bar("imgsvc", height, bottom=bottom, color=f"C{number}", label=part)
            bottom += height
        axis.set_title(f"{size}: {values[f'{size}: service CPU ÷ bare codec CPU']:.2f}")
    axes[0][0].set_ylabel("CPU of an image in ms")
    axes[0][0].legend(fontsize="small")
    plt.tight_layout()
    plt.savefig(file, metadata={"Date": None})
