"""Bytes of an image in, smaller bytes out.

    codec         the way of one image, in the steps below
    identify      which format it is
    containers    what its container declares, and taking metadata out; a file for each format
    admit         refusing what would cost too much
    decode        frames, upright and in sRGB (colour), as a picture
    choose        which formats to try, and which result is the best (quality, stripped)
    encode        a picture as a file of one format

    pool          what the service calls: dispatches tasks to worker processes
    worker        one worker process as the service sees it; worker_process is what runs in it,
                  process_limits and sandbox are what it may not exceed and not do

Only worker processes load Pillow.
"""
