"""Which encodings are known, and that what is in them becomes the same text in UTF-8."""

from __future__ import annotations

import pytest

from imgsvc.domain.errors import ServiceError
from imgsvc.http.input.charsets import TooLargeError, UnreadableError, as_utf8, find

TEXTS = {
    "utf-8": "Café 椅子",
    "UTF8": "Café 椅子",
    "utf-16": "Café 椅子",
    "UTF-16LE": "Café 椅子",
    "utf-16be": "Café 椅子",
    "us-ascii": "Cafe",
    "windows-1250": "Židle",
    "windows-1251": "Стул",
    "Windows-1252": "Café, 5 €",
    "iso-8859-1": "Café, 5 €",  # as Windows means it
    "latin1": "Café",
    "ISO_8859-1:1987": "Café",
    "windows-1253": "Καρέκλα",
    "iso-8859-9": "Sandalyeğ",
    "windows-1255": "כיסא",
    "windows-1256": "كرسي",
    "windows-1257": "Krėslas",
    "windows-1258": "Ghê",
    "tis-620": "เก้าอี้",
    "iso-8859-2": "Židle",
    "iso-8859-5": "Стул",
    "iso-8859-7": "Καρέκλα",
    "iso-8859-8-i": "כיסא",
    "iso-8859-15": "5 €",
    "koi8-r": "Стул",
    "koi8-u": "Стілець",
    "ibm866": "Стул",
    "cp850": "Café",
    "macintosh": "Café",
    "x-mac-cyrillic": "Стул",
    "shift_jis": "椅子①",
    "Shift-JIS": "椅子",
    "sjis": "椅子",
    "windows-31j": "椅子①",
    "euc-jp": "椅子",
    "iso-2022-jp": "椅子",
    "gb2312": "椅子",
    "gbk": "椅子",
    "gb18030": "椅子𠀀",
    "big5": "椅子",
    "euc-kr": "의자",
    "ks_c_5601-1987": "의자똠",
}
WRITTEN_AS = {
    "iso-8859-1": "cp1252",
    "iso-8859-8-i": "iso8859-8",
    "shift_jis": "cp932",
    "windows-31j": "cp932",
    "x-mac-cyrillic": "mac-cyrillic",
    "ks_c_5601-1987": "cp949",
}


@pytest.mark.parametrize("label", TEXTS)
def test_what_is_declared_is_what_is_read(label: str) -> None:
    posted = TEXTS[label].encode(WRITTEN_AS.get(label, label.replace(":1987", "")))
    assert as_utf8(posted, find(label), 100).decode() == TEXTS[label]


@pytest.mark.parametrize("label", [None, "", " "])
def test_what_declares_nothing_is_utf_8(label: str | None) -> None:
    assert find(label).codec == "utf-8"


@pytest.mark.parametrize(
    "label",
    ["utf-7", "utf-32", "hz-gb-2312", "iso-2022-kr", "rot13", "idna", "zip", "x" * 9999, "é"],
)
def test_other_labels_are_refused_with_what_is_known(label: str) -> None:
    with pytest.raises(ServiceError) as refused:
        find(label)
    assert refused.value.code.name == "UNSUPPORTED_MEDIA_TYPE"
    assert ascii(label[:40]) in refused.value.detail
    assert "shift_jis" in refused.value.detail
    assert len(refused.value.detail) < 1000


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_says_more_than_a_label(encoding: str) -> None:
    assert as_utf8("Café".encode(encoding), find("windows-1252"), 100).decode() == "Café"


@pytest.mark.parametrize(
    ("label", "posted", "line"),
    [
        ("us-ascii", "a\nCafé".encode(), 2),
        ("windows-1252", b"x" * 70_000 + b"\r\n\r\n\x81", 3),
        ("shift_jis", b"a\rb\r\n\x88\xd6\x81", 3),
        ("iso-2022-jp", b"a\n\x1b(X", 2),
        ("utf-16", "a\nb\n".encode("utf-16")[:-1], 2),
        ("utf-16be", "a\n\ud800".encode("utf-16-be", "surrogatepass"), 2),
        ("euc-kr", b"\n\xff\xff", 2),
    ],
)
def test_what_is_not_in_its_charset_is_named_with_its_line(
    label: str, posted: bytes, line: int
) -> None:
    with pytest.raises(UnreadableError, match="(?i)is not readable as " + label[:6]) as unreadable:
        as_utf8(posted, find(label), 1_000_000)
    assert unreadable.value.line == line


def test_what_would_grow_over_the_limit_is_not_made() -> None:
    posted = "€".encode("cp1252") * 1000
    assert len(as_utf8(posted, find("cp1252"), 3000)) == 3000
    with pytest.raises(TooLargeError):
        as_utf8(posted, find("cp1252"), 2999)
