"""Random bodies and damaged images: whatever comes, the answer is one that was meant to be given.

``make fuzz EXAMPLES=20000`` tries more of them, and others each time.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from imgsvc.domain.errors import ServiceError
from imgsvc.domain.model import Recipe
from imgsvc.imaging.pool import CodecPool
from imgsvc.imaging.tasks import Task
from imgsvc.runtime.metrics import Metrics
from imgsvc.runtime.settings import Codec
from tests import hostile
from tests.hostile import WHOLE
from tests.support import Origin, Service

pytestmark = pytest.mark.long

EXAMPLES = int(os.environ.get("EXAMPLES", "300"))
FUZZED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
ACCEPTED = settings(FUZZED, max_examples=EXAMPLES // 5)

# --- Images -----------------------------------------------------------------------------------

MEANT = {"IMAGE_CORRUPT", "TOO_MANY_PIXELS", "TOO_MANY_FRAMES", "NOT_AN_IMAGE"}
MEANT |= {"UNSUPPORTED_FORMAT", "TOO_LARGE"}

SEEDS = {
    **WHOLE,
    **hostile.lies(),
    **hostile.polyglots(),
    "exif": hostile.with_segments(
        b"\xff\xe1\0\x20Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0"
    ),
    "pages": hostile.tiff(pages=3),
    "with a directory within": hostile.tiff((34_665, 4, 1, 8), (330, 4, 1, 8)),
}
NASTY = [0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFF, 0x8000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A picture with a few bytes changed, moved, repeated, cut out, or taken from another one."""
    data = bytearray(draw(st.sampled_from(sorted(SEEDS)).map(SEEDS.__getitem__)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        if draw(st.booleans()):  # where sizes and offsets are
            at %= 300
        at = max(at, draw(st.sampled_from([0, 12, 12, 12, 12])))  # seldom its magic
        span = draw(st.sampled_from([1, 2, 4, 8, 64, 1024]))
        match draw(st.integers(0, 6)):
            case 0:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 1 | 2:
                width = draw(st.sampled_from([1, 2, 4]))
                number = draw(st.sampled_from(NASTY)) & ((1 << 8 * width) - 1)
                order = draw(st.sampled_from(["big", "little"]))
                data[at : at + width] = number.to_bytes(width, order)
            case 3:
                del data[at : at + span]
            case 4:
                data[at:at] = data[at : at + span] * draw(st.sampled_from([1, 2, 300]))
            case 5:
                other = SEEDS[draw(st.sampled_from(sorted(SEEDS)))]
                data[at : at + span] = other[at : at + span]
            case 6:
                del data[max(at, 12) :]
    return bytes(data)


class Oven:
    """A worker process, asked from a thread; a decoder that crashes takes no test with it."""

    def __init__(self, pool: CodecPool, folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._pool, self._folder, self._loop = pool, folder, loop

    def outcome(self, data: bytes, wanted: str) -> str | bytes:
        """The code, or the result."""
        task = Task(
            self._folder / "in", self._folder / "out", Recipe.model_validate({"format": wanted})
        )
        task.source.write_bytes(data)
        try:
            asyncio.run_coroutine_threadsafe(self._pool.encode(task), self._loop).result(60)
        except ServiceError as error:
            return error.code.name
        return task.target.read_bytes()


async def test_damaged_images_get_a_code_or_become_whole_ones(tmp_path: Path) -> None:
    pool = CodecPool(Codec(workers=1, max_pixels=1_000_000, task_s=10), Metrics())
    await pool.start()
    oven = Oven(pool, tmp_path, asyncio.get_running_loop())

    @FUZZED
    @given(data=damaged(), wanted=st.sampled_from(["keep", "auto", "jpeg", "png", "webp", "avif"]))
    def fuzz(data: bytes, wanted: str) -> None:
        outcome = oven.outcome(data, wanted)
        if isinstance(outcome, bytes):
            Image.open(BytesIO(outcome)).load()
            assert hostile.SECRET_FACE not in outcome
        else:
            assert outcome in MEANT

    try:
        await asyncio.to_thread(fuzz)
    finally:
        pool.close()


# --- Bodies -----------------------------------------------------------------------------------

TEXTS = st.text(max_size=30) | st.sampled_from(
    ["", "\0", "=1+1", "\u202e", "x" * 501, "\U0001f600"]
)
# No address that could be dialled: these bodies are only tried out.
URLS = TEXTS | TEXTS.map("http://127.0.0.1:9/{}".format) | TEXTS.map("http://{}@[".format)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
JUNK = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4)
)
PRODUCTS = st.fixed_dictionaries(
    {},
    optional={
        "serialNumber": TEXTS | JUNK,
        "productName": TEXTS | JUNK,
        "inputUrls": st.lists(URLS, max_size=4) | JUNK,
        "more": JUNK,
    },
)
WEBHOOKS = st.fixed_dictionaries(
    {},
    optional={
        "url": URLS | JUNK,
        "secret": TEXTS,
        "events": st.lists(TEXTS | st.just("request.failed"), max_size=3) | JUNK,
        "headers": st.dictionaries(TEXTS | st.just("X-Key"), TEXTS, max_size=3) | JUNK,
    },
)
OPTIONS = st.fixed_dictionaries({}, optional={"format": TEXTS | st.just("webp"), "quality": JUNK})
UPLOADS = st.fixed_dictionaries(
    {},
    optional={
        "products": st.lists(PRODUCTS | JUNK, max_size=4) | JUNK,
        "webhookUrl": URLS | JUNK,
        "webhook": WEBHOOKS | JUNK,
        "options": OPTIONS | JUNK,
    },
)
CELLS = TEXTS | URLS | st.sampled_from(['"', '""', "'", ",", ";", "\t", "\r", "\n", "\r\n", " "])
SHEETS = st.lists(st.lists(CELLS, max_size=6).map(",".join), max_size=6).map("\n".join)
HEADER = "Serial Number,Product Name,Input Image Urls\n"
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "utf-7"])


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def sheets(draw: st.DrawFn) -> bytes:
    text = draw(st.sampled_from(["", HEADER, HEADER.replace(",", ";")])) + draw(SHEETS)
    return text.encode(draw(ENCODINGS), "replace")


@st.composite
def forms(draw: st.DrawFn) -> bytes:
    """A form whose parts, headers and boundaries are nearly right."""
    out = [draw(st.binary(max_size=20))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(["file", "webhookUrl", "webhook", "options"]) | TEXTS)
        body = draw(
            sheets() | WEBHOOKS.map(as_json) | OPTIONS.map(as_json) | st.binary(max_size=50)
        )
        disposition = f'Content-Disposition: form-data; name="{name}"'.encode(errors="replace")
        headers = draw(st.sampled_from([b"", b"\r\nContent-Encoding: gzip", b"\r\nX", b"\r\n:"]))
        out.append(b"--b\r\n" + disposition + headers + b"\r\n\r\n" + body + b"\r\n")
    out.append(draw(st.sampled_from([b"--b--\r\n", b"--b--", b"--b", b""])))
    return b"".join(out)


JSON_BODIES = UPLOADS.map(as_json) | JUNK.map(as_json) | st.binary(max_size=100)
POSTS = st.one_of(
    st.tuples(st.just("application/json"), JSON_BODIES),
    st.tuples(st.just("text/csv"), sheets() | st.binary(max_size=100)),
    st.tuples(st.just("multipart/form-data; boundary=b"), forms() | st.binary(max_size=100)),
    st.tuples(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"])), JSON_BODIES),
)


class Client(http.client.HTTPConnection):
    """Posts over one connection, from a thread."""

    def __init__(self, service: Service) -> None:
        super().__init__("127.0.0.1", service.settings.http.port, timeout=20)

    def post(self, path: str, content_type: str, body: bytes) -> tuple[int, str, bytes]:
        """Status, media type and body of the answer."""
        self.request("POST", path, body, {"Content-Type": content_type})
        with self.getresponse() as response:
            return response.status, response.headers.get_content_type(), response.read()


def assert_meant(status: int, media_type: str, answer: bytes) -> None:
    """Accepted, or refused with a problem that says what and where."""
    assert status in {200, 202, 400, 408, 413, 415, 422}, (status, answer)
    said = json.loads(answer)
    if status >= 400:
        assert media_type == "application/problem+json"
        assert said["status"] == status
        assert said["detail"].strip()


async def test_random_bodies_are_accepted_or_refused_with_a_problem(service: Service) -> None:
    @FUZZED
    @given(post=POSTS)
    def fuzz(post: tuple[str, bytes]) -> None:
        assert_meant(*client.post("/api/upload?validate=true", *post))

    with closing(Client(service)) as client:
        await asyncio.to_thread(fuzz)


# The service, in the other thread, draws its waits meanwhile.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
async def test_random_texts_are_kept_or_refused(service: Service, origin: Origin) -> None:
    """These are accepted if they can be, so they go through the ledger and come back."""
    accepted = set()

    @ACCEPTED
    @given(products=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
    def fuzz(products: list[tuple[str, str]]) -> None:
        body = {
            "products": [
                {"serialNumber": serial, "productName": name, "inputUrls": [origin.url("none")]}
                for serial, name in products
            ]
        }
        status, media_type, answer = client.post("/api/upload", "application/json", as_json(body))
        assert_meant(status, media_type, answer)
        if status == 202:
            accepted.add((json.loads(answer)["requestId"], tuple(products)))

    with closing(Client(service)) as client:
        await asyncio.to_thread(fuzz)
    assert accepted
    for request_id, products in accepted:
        await service.finished(request_id)
        images = await service.images(request_id)
        assert [(i["serialNumber"], i["productName"]) for i in images] == list(products)
        assert len(await service.report(request_id)) == len(products)
