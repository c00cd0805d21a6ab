"""The commands of a client: submit, status, images, retry, cancel, erase, requests, report.

They speak HTTP to any imgsvc, and import nothing of the service.
"""

from imgsvc.client.commands import client

__all__ = ["client"]
