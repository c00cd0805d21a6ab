"""``python -m bench [CASE...]``: measures, and writes results under ``bench/results``."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import time
from datetime import UTC, datetime
from pathlib import Path

from bench import machine, plot
from bench.cases import CASES
from bench.figures import Figure, table
from bench.lab import Lab
from bench.photographs import SIZES

_HERE = Path(__file__).parent
_LENGTHS = [100, 1000, 10_000]


async def _measure(names: list[str], lab: Lab, folder: Path) -> bool:
    """Run cases one after the other, writing what is known after each; whether all worked out."""
    found: list[Figure] = []
    failed = []
    for name in names:
        print(name, flush=True)
        began = time.monotonic()
        try:
            figures = await CASES[name](lab)
        except (RuntimeError, TimeoutError, OSError) as error:
            failed.append(name)
            print(f"  failed: {error!r}", flush=True)
            continue
        found += figures
        _write(folder, found)
        print(table(figures) + f"{time.monotonic() - began:.0f} s\n", flush=True)
    if failed:
        print(f"Failed: {', '.join(failed)}")
    print(f"Written to {folder}")
    return not failed


def _write(folder: Path, figures: list[Figure]) -> None:
    described = machine.described()
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**dataclasses.asdict(figure), "value": figure.value} for figure in figures]
    text = json.dumps({"machine": described, "figures": rows}, indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(text + "\n", "utf-8")
    (folder / "table.md").write_text(
        "\n".join(f"- {name}: {value}" for name, value in described.items())
        + f"\n\n{table(figures)}",
        "utf-8",
    )
    plot.draw(figures, folder / "plot.svg")


def main() -> None:
    """Run the chosen cases."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; or all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", action="append", choices=SIZES, help="may be repeated; or all")
    parser.add_argument(
        "--length", action="append", type=int, help="images of one request in case growth"
    )
    parser.add_argument("--name", default=f"{datetime.now(UTC):%Y-%m-%d}", help="of the results")
    chosen = parser.parse_args()
    if unknown := set(chosen.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    lab = Lab(
        cache=_HERE / ".cache",
        sizes=[SIZES[name] for name in chosen.size or SIZES],
        rounds=chosen.rounds,
        lengths=chosen.length or _LENGTHS,
    )
    folder = _HERE / "results" / chosen.name
    worked = asyncio.run(_measure(chosen.cases or list(CASES), lab, folder))
    raise SystemExit(0 if worked else 1)


if __name__ == "__main__":
    main()
