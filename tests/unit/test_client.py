"""The client's pure parts: what is sent, how it is told, what files are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsvc.client import sources, text
from imgsvc.client.files import replacing
from imgsvc.client.folders import Folders
from imgsvc.client.sources import JsonUpload, SourceError

A, B = "https://example.com/a%20b.jpg?x=1", "HTTP://example.com"


def sent(*of: str, webhook: str | None = None, **options: Any) -> Any:
    """The JSON that is posted."""
    upload = sources.read(of, webhook, options)
    assert isinstance(upload, JsonUpload)
    return orjson.loads(upload.text)


def test_each_url_is_a_product_of_its_own() -> None:
    assert sent(A, B, webhook="https://example.com/hook", format="webp") == {
        "products": [
            {"serialNumber": "1", "productName": "a b.jpg", "inputUrls": [A]},
            {"serialNumber": "2", "productName": B, "inputUrls": [B]},
        ],
        "webhookUrl": "https://example.com/hook",
        "options": {"format": "webp"},
    }


def test_json_goes_as_it_is_but_for_what_the_command_says(tmp_path: Path) -> None:
    file = tmp_path / "upload.JSON"
    file.write_text('{ "products": [], "options": {"quality": 50, "format": "png"} }')
    upload = sources.read([str(file)], None, {})
    assert isinstance(upload, JsonUpload)
    assert upload.text == file.read_bytes()
    assert sent(str(file), webhook="https://example.com/hook", format="webp") == {
        "products": [],
        "options": {"quality": 50, "format": "webp"},
        "webhookUrl": "https://example.com/hook",
    }


@pytest.mark.parametrize("content", ["{", "[]", '{"options": 5}'])
def test_json_that_nothing_can_be_said_beside_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "upload.json"
    file.write_text(content)
    with pytest.raises(SourceError, match="upload"):
        sources.read([str(file)], None, {"quality": 50})


def test_sources_that_do_not_go_together_are_refused() -> None:
    for of in ([A, "x.csv"], ["x.csv", "y.csv"]):
        with pytest.raises(SourceError):
            sources.read(of, None, {})


def test_what_others_wrote_does_not_steer_the_terminal() -> None:
    assert text.plain("a\x1b[2Jb\r\n\u202ec") == "a�[2Jb���c"
    assert text.cell("Lämp\tx", 4) == "Läm…"
    assert text.cell("椅子椅子", 6) == "椅子 …"
    assert text.cell("ab", 4) == "ab  "


@pytest.mark.parametrize(
    ("serial", "folder"),
    [
        ("SKU 1.b-2_c", "SKU 1.b-2_c"),
        ("Lämp कुर्सी 椅", "Lämp कुर्सी 椅"),
        ("../../etc", "_.._etc"),
        ("/etc/passwd", "_etc_passwd"),
        ("C:\\x", "C__x"),
        (".", "_"),
        (" .. ", "_"),
        (".hidden", "hidden"),
        ("a\0b\nc\x1b", "a_b_c_"),
        ("x" * 300, "x" * 100),
        ("é" * 300, "é" * 50),
    ],
)
def test_a_serial_number_becomes_a_harmless_name(serial: str, folder: str) -> None:
    assert Folders().name(serial, 0) == folder


def test_products_whose_names_would_be_the_same_are_told_apart_by_their_place() -> None:
    folders = Folders()
    serials = ["A", "a", "A", "a/b", "a_b", "A (2)", "e\u0301", "é"]
    assert [folders.name(serial, i) for i, serial in enumerate(serials)] == [
        "A",
        "a (2)",
        "A (3)",
        "a_b",
        "a_b (5)",
        "A (2) (6)",
        "é",
        "é (8)",
    ]


@given(st.lists(st.text() | st.sampled_from(["", ".", "..", "/", "../x", "a/b", "A/B"])))
def test_no_name_leads_elsewhere_and_none_is_there_twice(serials: list[str]) -> None:
    folders = Folders()
    names = [folders.name(serial, i) for i, serial in enumerate(serials)]
    base = Path("/base")
    assert all((base / name).resolve().parent == base for name in names)
    assert len({name.casefold() for name in names}) == len(names)
    assert all(len(name.encode()) < 255 for name in names)


def test_a_file_is_there_in_full_or_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "new" / "report.csv"
    with replacing(file) as out:
        out.write(b"first")
        assert not file.exists()
    with pytest.raises(RuntimeError), replacing(file) as out:  # noqa: PT012
        out.write(b"half")
        raise RuntimeError
    assert file.read_bytes() == b"first"
    assert list(file.parent.iterdir()) == [file]
