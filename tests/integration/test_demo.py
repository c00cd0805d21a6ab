"""`imgsvc demo` does the main job, judges it without mercy, and leaves nothing behind."""

import copy
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from imgsvc import demo
from imgsvc.demo import expectations, samples, sheet
from imgsvc.demo.outcome import Outcome, Picture
from imgsvc.demo.receiver import Delivery
from imgsvc.demo.samples import Product, Sample
from imgsvc.domain.errors import ErrorCode
from imgsvc.domain.model import ImageStatus, Recipe
from imgsvc.imaging import codec
from imgsvc.imaging.admit import Limits
from imgsvc.reports import report_csv
from tests.contract.documents import README, blocks
from tests.contract.terminal import alike
from tests.support import wait_until

ROOT = Path(__file__).parents[2]


# --- The whole of it --------------------------------------------------------------------------


def started(folder: Path) -> subprocess.Popen[str]:
    """The demo with ``folder`` to work in, and a folder of its own for temporary files."""
    (folder / "tmp").mkdir()
    # What the user has set for a service of theirs must not matter.
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(folder / "tmp"),
        "MONGO_URI": "mongodb://nowhere.invalid",
        "IMGSVC_NO_SUCH_SECTION__KEY": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "imgsvc", "demo"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def processes_in(folder: Path) -> list[str]:
    """Processes that work in a folder or were told of it."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        told = " ".join([*(process.info["cmdline"] or []), process.info["cwd"] or ""])
        if str(folder) in told and process.info["cmdline"]:
            found.append(told)
    return found


def without_numbers(text: str) -> str:
    return re.sub(r"\d[\d,.]*", "#", text)


def test_every_expectation_holds_on_real_photographs(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    assert "✗" not in output
    assert output.count("✓") == len(SPOILED)
    assert "missing.jpg: FETCH_STATUS" in output
    [shown] = blocks(README, "text")
    assert alike(without_numbers(f"...\n{shown}...\n"), without_numbers(output))

    made = tmp_path / "demo-output"
    assert {path.name for path in made.iterdir()} == {
        "before-after.png",
        "report.csv",
        "service.log",
        "webhook.json",
    }
    with Image.open(made / "before-after.png") as contact_sheet:
        contact_sheet.load()
    [webhook] = json.loads((made / "webhook.json").read_text())
    assert webhook["verified"]
    assert webhook["body"]["type"] == "request.partial"
    with (made / "report.csv").open(newline="", encoding="utf-8") as file:
        *_, odd = csv.DictReader(file)
    assert odd["Product Name"] == "'=1+1"
    assert [bool(url) for url in odd["Output Image URLs"].split(", ")] == [False, True, False]

    assert processes_in(tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_nothing_is_left_when_it_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path) as process:
        assert process.stdout is not None
        so_far = ""
        while "posted" not in so_far:
            line = process.stdout.readline()
            assert line, so_far
            so_far += line
        process.send_signal(number)
        process.communicate(timeout=90)

    async def is_empty() -> bool:
        return not processes_in(tmp_path)

    await wait_until(is_empty, "all processes ended")
    if number is not signal.SIGKILL:
        assert process.returncode == 130
        assert list((tmp_path / "tmp").iterdir()) == []


def test_missing_photographs_are_told_with_their_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    samples._pictures_of.cache_clear()
    monkeypatch.setattr(samples, "files", missing)
    assert demo.main(tmp_path) == 1
    assert "make setup" in capsys.readouterr().out


# --- What is posted ---------------------------------------------------------------------------


def test_the_catalogue_has_what_is_easily_harmed() -> None:
    assert len(samples.photo_names()) >= 24
    files = {s.name: s.data for product in samples.catalogue() for s in product.samples if s.data}
    opened = {n: Image.open(BytesIO(data)) for n, data in files.items() if n != "text.jpg"}
    width, height = opened["large.jpg"].size
    assert width * height >= 12_000_000
    assert opened["transparent.png"].getchannel("A").getextrema() == (0, 255)
    assert opened["cmyk.jpg"].mode == "CMYK"
    assert opened["16-bit.png"].mode == "I;16"
    assert opened["animated.gif"].n_frames == 6
    assert "icc_profile" in opened["profile.jpg"].info
    exif = opened["sideways.jpg"].getexif()
    assert exif[0x0112] == 6
    assert exif.get_ifd(0x8825)[1] == "N"


# --- How it is judged -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good_outcome() -> Outcome:
    """A run without servers on some of the samples; every expectation holds."""
    *_, made, odd = samples.catalogue()
    products = [Product(made.serial_number, made.name, made.samples[1:5]), odd]
    shown = [(product, [pictured(sample) for sample in product.samples]) for product in products]
    status = {
        "requestId": "r",
        "status": "PARTIAL",
        "totalImages": 7,
        "failedImages": 2,
        "bytesIn": 1,
        "bytesOut": 1,
    }
    return Outcome(
        products=shown,
        status=status,
        report="".join(
            [
                report_csv.header().decode(),
                *(report_line(product, list(ps)) for product, ps in shown),
            ]
        ),
        deliveries=[Delivery({}, json.dumps({"data": status}), verified=True)],
        service_log='{"level":"info"}\n',
        exit_code=0,
        work_s=1.0,
        cpu_s=None,
        peak_rss_bytes=None,
    )


@pytest.fixture
def outcome(good_outcome: Outcome) -> Outcome:
    """One to be spoiled."""
    return copy.deepcopy(good_outcome)


def pictured(sample: Sample) -> Picture:
    url = f"http://origin/{sample.name}"
    image: dict[str, Any] = {"inputUrl": url, "outputUrl": None, "error": None}
    if sample.error:
        error = {"code": sample.error.name, "detail": "no"}
        return Picture(sample, {**image, "status": "FAILED", "error": error}, None)
    assert sample.data is not None
    encoded = codec.encode(sample.data, Recipe(), Limits())
    image |= {
        "status": "COMPLETED",
        "outputUrl": f"http://bucket/{sample.name}",
        "bytesIn": len(sample.data),
        "bytesOut": len(encoded.data),
        "format": encoded.format,
        "width": encoded.width,
        "height": encoded.height,
    }
    return Picture(sample, image, encoded.data)


def report_line(product: Product, pictures: list[Picture]) -> str:
    images = [
        report_csv.ReportImage(
            input_url=p.image["inputUrl"],
            output_url=p.image["outputUrl"],
            status=ImageStatus(p.image["status"]),
        )
        for p in pictures
    ]
    return report_csv.line(
        report_csv.ReportRow(product.serial_number, product.name, images)
    ).decode()


def replaced(outcome: Outcome, **changes: Any) -> Outcome:
    return Outcome(**{**vars(outcome), **changes})


def with_result(name: str, change: Callable[[Image.Image], bytes]) -> Callable[..., None]:
    """Gives a picture another result, with sizes that agree."""

    def spoil(outcome: Outcome) -> None:
        [picture] = [p for p in outcome.pictures if p.sample.name == name]
        assert picture.result is not None
        picture.result = change(Image.open(BytesIO(picture.result)))
        picture.image["bytesOut"] = len(picture.result)

    return spoil


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def not_completed(outcome: Outcome) -> None:
    outcome.pictures[0].image["status"] = "FAILED"


def wrong_error(outcome: Outcome) -> None:
    [missing] = [p for p in outcome.pictures if p.sample.error is ErrorCode.FETCH_STATUS]
    missing.image["error"]["code"] = "INTERNAL"


def lost_result(outcome: Outcome) -> None:
    outcome.pictures[0].result = None


def wrong_width(outcome: Outcome) -> None:
    outcome.pictures[0].image["width"] += 1


def nearly_as_transparent(image: Image.Image) -> bytes:
    image.putalpha(image.getchannel("A").point(lambda value: value // 8 * 8))
    return saved(image, "PNG", optimize=True)


SPOILED: dict[str, Callable[[Outcome], Outcome | None]] = {
    "every good image is COMPLETED": not_completed,
    "every bad one has its own error, and nobody else has one": wrong_error,
    "every result can be downloaded, with the size that was told": lost_result,
    "no result is larger than its source": with_result(
        "cmyk.jpg", lambda im: saved(im, "JPEG", quality=100) + bytes(500_000)
    ),
    "no result has more pixels than its source, or fewer": wrong_width,
    "every result looks like its source: upright, in its colours": with_result(
        "sideways.jpg", lambda im: saved(im.rotate(180), "JPEG")
    ),
    "what is transparent stays exactly as transparent": with_result(
        "transparent.png", nearly_as_transparent
    ),
    "what moves keeps its frames and their times": with_result(
        "animated.gif", lambda im: saved(im, "GIF")
    ),
    "no result holds EXIF, a GPS position, XMP or comments": with_result(
        "sideways.jpg", lambda im: saved(im, "JPEG", exif=samples._exif())
    ),
    "the request ends as PARTIAL": lambda o: replaced(
        o,
        status={**o.status, "status": "COMPLETED"},
        deliveries=[
            Delivery({}, json.dumps({"data": {**o.status, "status": "COMPLETED"}}), verified=True)
        ],
    ),
    "the webhook came exactly once, with the right signature": lambda o: replaced(
        o, deliveries=o.deliveries * 2
    ),
    "the webhook tells what /status tells": lambda o: replaced(
        o, status={**o.status, "failedImages": 3}
    ),
    "the CSV has every result in the place of its source": lambda o: replaced(
        o, report=o.report.replace('", http', '"http')
    ),
    "no cell of the CSV would run as a formula": lambda o: replaced(
        o, report=o.report.replace("'=1", "=1")
    ),
    "the service logged JSON and no error, and stopped when told": lambda o: replaced(
        o, service_log=o.service_log + "Traceback (most recent call last):\n"
    ),
}


def broken(outcome: Outcome) -> set[str]:
    return {each.text for each in expectations.judged(outcome) if not each.held}


def test_a_good_run_breaks_no_expectation(outcome: Outcome) -> None:
    assert broken(outcome) == set()


@pytest.mark.parametrize("text", SPOILED)
def test_each_expectation_can_be_broken_alone(outcome: Outcome, text: str) -> None:
    assert broken(SPOILED[text](outcome) or outcome) == {text}


def test_there_is_a_way_to_break_every_expectation(outcome: Outcome) -> None:
    assert list(SPOILED) == [each.text for each in expectations.judged(outcome)]


@pytest.mark.parametrize("deliveries", [[], [Delivery({}, "forged", verified=False)]])
def test_a_missing_or_forged_webhook_is_noticed(
    outcome: Outcome, deliveries: list[Delivery]
) -> None:
    outcome = replaced(outcome, deliveries=deliveries)
    assert "the webhook came exactly once, with the right signature" in broken(outcome)


def test_an_unreadable_result_is_judged_and_drawn(outcome: Outcome, tmp_path: Path) -> None:
    outcome.pictures[1].result = b"no picture"
    assert "every result looks like its source: upright, in its colours" in broken(outcome)
    sheet.draw(outcome, tmp_path / "sheet.png")
