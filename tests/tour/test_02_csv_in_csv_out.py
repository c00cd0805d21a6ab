"""Tour 2: a spreadsheet goes in, and comes back with the results beside the inputs."""

from __future__ import annotations

from tests.support import Origin, Service


async def test_a_spreadsheet_goes_in_and_comes_back_with_results(
    service: Service, origin: Origin
) -> None:
    # As a spreadsheet program saves it: BOM, semicolons, CRLF.
    csv = (
        "\ufeffSerial Number;Product Name;Input Image Urls\r\n"
        f'1;Chair;"{origin.url("rocket.jpg")}, {origin.url("coffee.png")}"\r\n'
        f"2;=Lamp;{origin.url('retina.jpg')}\r\n"
    )
    status, answer = await service.post(
        "/api/upload", data=csv.encode(), headers={"Content-Type": "text/csv"}
    )
    assert status == 202
    await service.finished(answer["requestId"])

    chair, lamp = await service.report(answer["requestId"])
    assert chair["Serial Number"] == "1"
    assert len(chair["Output Image URLs"].split(", ")) == 2
    assert len(await service.stored(lamp["Output Image URLs"])) > 0

    # A name that a spreadsheet would run as a formula comes back harmless.
    assert lamp["Product Name"] == "'=Lamp"
