"""No dependency below the version that mended what concerns us, neither asked for nor pinned."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]

FLOORS = {
    # Out-of-bounds writes and memory bombs in decoders, and in paste and colour transforms,
    # which every format goes through (CVE-2026-25990, -42311, -59199, -59204, -59205).
    "pillow": "12.3",
    # Confusion of HMAC and public keys, a way round the list of algorithms, keys fetched from
    # file:// (CVE-2026-48522 to -48526).
    "pyjwt": "2.13",
    # Literal addresses in odd forms were dialled up to 3.14.0; up to 3.14.3 bodies that came
    # whole were taken for cut off.
    "aiohttp": "3.14.4",
}


def asked_for() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {r.name.lower(): r for r in map(Requirement, project["dependencies"])}


@pytest.mark.parametrize(("name", "floor"), FLOORS.items())
def test_nothing_below_the_floor_is_asked_for(name: str, floor: str) -> None:
    (specifier,) = asked_for()[name].specifier
    assert specifier.operator == ">="
    assert Version(specifier.version) >= Version(floor)


@pytest.mark.parametrize("file", ["runtime.txt", "dev.txt"])
@pytest.mark.parametrize(("name", "floor"), FLOORS.items())
def test_nothing_below_the_floor_is_pinned(file: str, name: str, floor: str) -> None:
    pins = (ROOT / "requirements" / file).read_text()
    (version,) = re.findall(rf"^{name}(?:\[[^]]*\])?==(\S+)", pins, re.MULTILINE)
    assert Version(version) >= Version(floor)


@pytest.mark.parametrize("file", ["runtime.txt", "dev.txt"])
def test_every_pin_is_exact_and_hashed(file: str) -> None:
    text = (ROOT / "requirements" / file).read_text()
    pins = re.findall(r"^[a-z0-9][^ ]*.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(pins) > 30
    for pin in pins:
        assert re.match(r"[a-z0-9._-]+(\[[^]]*\])?==\S+ ", pin), pin[:80]
        assert "--hash=sha256:" in pin, pin[:80]
