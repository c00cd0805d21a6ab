"""The documents agree with the code and with each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imgsvc.domain.errors import IMAGE_CODES
from imgsvc.http.routes import ROUTES
from imgsvc.runtime.metrics import Metrics
from tests.contract import picture
from tests.contract.documents import DECISIONS, DOCUMENTS, README, ROOT, languages, prose

OTHERS = (ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md")
ALL = (*DOCUMENTS, *DECISIONS, *OTHERS)
DOCS = ROOT / "docs"
TOP = {path.name for path in ROOT.iterdir() if path.is_dir()}
# What a run makes, and what a reader brings along.
MADE = {"demo-output", "config/gcp-key.json", "bench/results/<date>/"}
every = pytest.mark.parametrize("document", ALL, ids=lambda path: path.stem)


@every
def test_every_path_is_there(document: Path) -> None:
    text = prose(document)
    found = set(re.findall(r"`([\w.<>-]+(?:/[\w.<>*-]+)+/?)", text))
    named = {path for path in found if path.partition("/")[0] in TOP} - MADE
    assert [path for path in sorted(named) if not list(ROOT.glob(path))] == []


@every
def test_every_file_is_there_that_is_named_without_its_folder(document: Path) -> None:
    names = set(re.findall(r"`(\w+\.(?:py|lua))`", prose(document)))
    assert [name for name in sorted(names) if not _somewhere(name)] == []


@every
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


@every
def test_what_is_in_a_block_is_said(document: Path) -> None:
    known = {"console", "shell", "text", "json", "python", "javascript"}
    assert languages(document) <= known, "console is run, shell only read"


def test_the_front_page_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 200


def test_every_call_is_documented() -> None:
    text = (DOCS / "api.md").read_text()
    parts = {"/docs.js", "/docs.css"}
    told = {f"`{r.method} {r.path}`" for r in ROUTES} | {f"`{r.path}`" for r in ROUTES}
    missing = [
        route.path
        for route in ROUTES
        if route.path not in parts
        and f"`{route.method} {route.path}`" not in text
        and not (route.scope == "docs" and f"`{route.path}`" in text)
    ]
    assert missing == []
    calls = re.findall(r"`((?:GET|POST|DELETE|PUT) /[^?`]*)", text)
    assert {f"`{call}`" for call in calls} <= told


def test_every_reason_for_an_image_to_fail_is_documented() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(code.name for code in IMAGE_CODES)


def test_every_metric_is_documented() -> None:
    rows = re.findall(r"^\| `(imgsvc_\w+)` \|", (DOCS / "operations.md").read_text(), re.MULTILINE)
    told = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in Metrics().registry.collect()
        if family.name.startswith("imgsvc_")
    }
    assert sorted(rows) == sorted(told)


def test_the_picture_is_what_the_code_says() -> None:
    assert picture.PICTURE.read_text() == picture.svg(), "python -m tests.contract.picture"


def test_the_table_of_rooms_is_complete() -> None:
    text = (DOCS / "architecture.md").read_text()
    rooms = re.findall(r"^\| `imgsvc/(\w+)(?:\.py)?` \|", text, re.MULTILINE)
    assert sorted(rooms) == sorted(room for layer in picture.layers() for room in layer)
    told = re.findall(r"^\d\. ((?:`\w+`(?:, )?)+)$", text, re.MULTILINE)
    layers = [re.findall(r"`(\w+)`", line) for line in told]
    assert [sorted(layer) for layer in layers] == [
        sorted(layer) for layer in picture.layers() if layer != ["client"]
    ]


def _somewhere(name: str) -> bool:
    return any(any((ROOT / top).rglob(name)) for top in ("imgsvc", "tests", "bench"))


def _anchors(document: Path) -> set[str]:
    """What the headings of a document are called in links, as GitHub has it."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }
