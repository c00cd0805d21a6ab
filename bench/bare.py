"""The bare codec: ``python bare.py IMAGES QUALITY FILE...`` prints what encoding them costs.

What any service around Pillow has to spend at the least: the same calls with the same settings on
files that are in memory, in as many processes as there are cores, and nothing else.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import time
from io import BytesIO
from multiprocessing.synchronize import Barrier
from pathlib import Path

from PIL import Image


def _encode(data: bytes, quality: int) -> int:
    image = Image.open(BytesIO(data), formats=["JPEG"])
    image.decodermaxblock = len(data)  # in one piece, as the service's workers do
    image.load()
    image.info = {}
    out = BytesIO()
    image.save(out, "JPEG", quality=quality, optimize=True, subsampling="4:2:0")
    return len(out.getvalue())


def _work(
    images: int, quality: int, files: list[str], start: Barrier, told: multiprocessing.Queue
) -> None:
    Image.core.set_blocks_max(16)  # as the service's workers do
    data = [Path(file).read_bytes() for file in files]
    for one in data[:2]:
        _encode(one, quality)
    start.wait()
    began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    bytes_out = sum(_encode(data[number % len(data)], quality) for number in range(images))
    ended, now = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime
    told.put((began, ended, cpu_s, bytes_out))


def main(images: int, quality: int, files: list[str]) -> dict[str, float]:
    """Encode ``images`` files in turn; CPU and wall seconds and bytes of output of all."""
    processes = os.cpu_count() or 1
    start, told = multiprocessing.Barrier(processes), multiprocessing.Queue()
    shares = [len(range(first, images, processes)) for first in range(processes)]
    workers = [
        multiprocessing.Process(target=_work, args=(share, quality, files, start, told))
        for share in shares
    ]
    for worker in workers:
        worker.start()
    answers = [told.get() for _ in workers]
    for worker in workers:
        worker.join()
    return {
        "images": images,
        "cpu_s": sum(cpu_s for _, _, cpu_s, _ in answers),
        "wall_s": max(ended for _, ended, _, _ in answers) - min(began for began, *_ in answers),
        "bytes_out": sum(bytes_out for *_, bytes_out in answers),
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
