"""Other encodings than UTF-8: found by their labels, and converted to UTF-8."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from imgsvc.domain.errors import ErrorCode, ServiceError

_CHUNK = 64 * 1024

# Python's codec -> labels of the WHATWG Encoding Standard (section 4.2). As it says, a label of a
# smaller code page stands for the larger one: ISO-8859-1 for windows-1252. Added are the encodings
# of spreadsheets under DOS and on old Macs. ASCII stays ASCII: text that claims to be and is not
# could be anything. UTF-7, HZ and the like are left out, because they hide ASCII in other ASCII.
_LABELS = {
    "utf-8": "utf-8 utf8 unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8",
    "utf-16-le": "utf-16 utf-16le ucs-2 iso-10646-ucs-2 csunicode unicode unicodefeff",
    "utf-16-be": "utf-16be unicodefffe",
    "ascii": "us-ascii ascii ansi_x3.4-1968",
    "cp1250": "windows-1250 cp1250 x-cp1250",
    "cp1251": "windows-1251 cp1251 x-cp1251",
    "cp1252": "windows-1252 cp1252 x-cp1252 iso-8859-1 iso_8859-1:1987 iso-ir-100 latin1 l1 "
    "csisolatin1 cp819 ibm819",
    "cp1253": "windows-1253 cp1253 x-cp1253",
    "cp1254": "windows-1254 cp1254 x-cp1254 iso-8859-9 iso_8859-9:1989 iso-ir-148 latin5 l5 "
    "csisolatin5",
    "cp1255": "windows-1255 cp1255 x-cp1255",
    "cp1256": "windows-1256 cp1256 x-cp1256",
    "cp1257": "windows-1257 cp1257 x-cp1257",
    "cp1258": "windows-1258 cp1258 x-cp1258",
    "cp874": "windows-874 dos-874 cp874 tis-620 iso-8859-11",
    "iso8859-2": "iso-8859-2 iso_8859-2:1987 iso-ir-101 latin2 l2 csisolatin2",
    "iso8859-3": "iso-8859-3 iso_8859-3:1988 iso-ir-109 latin3 l3 csisolatin3",
    "iso8859-4": "iso-8859-4 iso_8859-4:1988 iso-ir-110 latin4 l4 csisolatin4",
    "iso8859-5": "iso-8859-5 iso_8859-5:1988 iso-ir-144 cyrillic csisolatincyrillic",
    "iso8859-6": "iso-8859-6 iso-8859-6-e iso-8859-6-i iso_8859-6:1987 iso-ir-127 arabic asmo-708 "
    "ecma-114 csisolatinarabic csiso88596e csiso88596i",
    "iso8859-7": "iso-8859-7 iso_8859-7:1987 iso-ir-126 greek greek8 elot_928 ecma-118 "
    "sun_eu_greek csisolatingreek",
    "iso8859-8": "iso-8859-8 iso-8859-8-e iso-8859-8-i iso_8859-8:1988 iso-ir-138 hebrew logical "
    "visual csisolatinhebrew csiso88598e csiso88598i",
    "iso8859-10": "iso-8859-10 iso-ir-157 latin6 l6 csisolatin6",
    "iso8859-13": "iso-8859-13",
    "iso8859-14": "iso-8859-14",
    "iso8859-15": "iso-8859-15 l9 csisolatin9",
    "iso8859-16": "iso-8859-16",
    "koi8-r": "koi8-r koi8 koi cskoi8r",
    "koi8-u": "koi8-u koi8-ru",
    "cp437": "ibm437 cp437",
    "cp850": "ibm850 cp850",
    "cp852": "ibm852 cp852",
    "cp858": "ibm00858 cp858",
    "cp866": "ibm866 cp866 866 csibm866",
    "mac-roman": "macintosh mac x-mac-roman csmacintosh",
    "mac-latin2": "x-mac-ce x-mac-centraleurope",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "gb18030": "gb18030 gbk x-gbk cp936 gb2312 gb_2312-80 csgb2312 chinese iso-ir-58 "
    "csiso58gb231280",
    "big5hkscs": "big5 big5-hkscs cn-big5 csbig5 x-x-big5 cp950",
    "euc_jp": "euc-jp x-euc-jp cseucpkdfmtjapanese",
    "iso2022_jp": "iso-2022-jp csiso2022jp",
    "cp932": "shift_jis sjis x-sjis csshiftjis ms_kanji ms932 windows-31j cp932",
    "cp949": "euc-kr cseuckr ks_c_5601-1987 ks_c_5601-1989 ksc_5601 csksc56011987 korean "
    "iso-ir-149 windows-949 cp949",
}


class Charset(NamedTuple):
    """An encoding.

    Attributes:
        name: for the refusal.
        codec: Python's name.
    """

    name: str
    codec: str


UTF_8 = Charset("UTF-8", "utf-8")
_MARKS = (
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF16_LE, Charset("UTF-16", "utf-16-le")),
    (codecs.BOM_UTF16_BE, Charset("UTF-16", "utf-16-be")),
)


class UnreadableError(ValueError):
    """The bytes are not text in this encoding.

    Args:
        charset: the encoding.
        line: of the first unreadable byte, counted from 1.
    """

    def __init__(self, charset: Charset, line: int) -> None:
        super().__init__(
            f"is not readable as {charset.name}; save it as UTF-8, or say in the Content-Type "
            "which charset it is in"
        )
        self.line = line


class TooLargeError(ValueError):
    """The text is larger in UTF-8 than allowed."""


def find(label: str | None) -> Charset:
    """The encoding with this label; UTF-8 if there is none.

    Raises:
        ServiceError: UNSUPPORTED_MEDIA_TYPE, with the label and the known ones.
    """
    if label is None or not label.strip():
        return UTF_8
    # Not codecs.lookup: Python also has codecs that are not for text, and it caches each label that
    # it was ever asked for.
    codec = _CODECS.get(_bare(label))
    if codec is None:
        raise ServiceError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"The charset {label[:40]!a} is not known here; send UTF-8, or one of "
            f"{', '.join(labels.partition(' ')[0] for labels in _LABELS.values())}.",
        )
    return Charset(label, codec)


def as_utf8(content: bytes, charset: Charset, limit: int) -> bytes:
    """The same text in UTF-8, without a byte order mark.

    A byte order mark overrides the label: it was written with the text.

    Args:
        content: the bytes that were posted.
        charset: as labelled.
        limit: bytes of the result; content that is UTF-8 already is not checked.

    Raises:
        UnreadableError: the content is not text in that encoding.
        TooLargeError: the result would be larger than the limit.
    """
    begin = 0
    for mark, of in _MARKS:
        if content.startswith(mark):
            begin, charset = len(mark), of
    if charset.codec == UTF_8.codec:
        return content[begin:]
    decoder = codecs.getincrementaldecoder(charset.codec)()
    out = bytearray()
    try:
        for at in range(begin, len(content), _CHUNK):
            piece = content[at : at + _CHUNK]
            out += decoder.decode(piece, final=at + _CHUNK >= len(content)).encode()
            if len(out) > limit:
                raise TooLargeError
    except UnicodeDecodeError as error:
        text = out.decode() + error.object[: error.start].decode(charset.codec, "replace")
        raise UnreadableError(charset, 1 + len(_LINE_END.findall(text))) from None
    return bytes(out)


def _bare(label: str) -> str:
    """A label for comparison: without case and punctuation."""
    return re.sub(r"[\W_]", "", label).lower()


_CODECS = {_bare(label): codec for codec, labels in _LABELS.items() for label in labels.split()}
_LINE_END = re.compile(r"\r\n|\r|\n")
