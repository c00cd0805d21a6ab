"""Every setting of one process, in one frozen tree: a file for each section, or for close ones.

Order, weakest first: the defaults written here, ``config.toml``, ``IMGSVC_<SECTION>__<KEY>``,
and last the plain names that the first users of the service had (``PORT``, ``MONGO_URI``, ...).
"""

from imgsvc.runtime.settings.auth import Auth
from imgsvc.runtime.settings.errors import SettingsError
from imgsvc.runtime.settings.gcs import Gcs
from imgsvc.runtime.settings.http import Http, RateLimit
from imgsvc.runtime.settings.imaging import Codec, Dedupe, Spool
from imgsvc.runtime.settings.loading import load
from imgsvc.runtime.settings.mongo import Mongo
from imgsvc.runtime.settings.names import PLAIN_NAMES, is_setting, meant_by, name_of, overlooked
from imgsvc.runtime.settings.operation import Dev, Log, Retention
from imgsvc.runtime.settings.outbound import LONGEST_URL, Fetch, Net
from imgsvc.runtime.settings.redis import Redis
from imgsvc.runtime.settings.section import Network
from imgsvc.runtime.settings.show import show
from imgsvc.runtime.settings.tree import Settings
from imgsvc.runtime.settings.webhook import SECRET_PREFIX, Webhook, check_webhook_secret

__all__ = [
    "LONGEST_URL",
    "PLAIN_NAMES",
    "SECRET_PREFIX",
    "Auth",
    "Codec",
    "Dedupe",
    "Dev",
    "Fetch",
    "Gcs",
    "Http",
    "Log",
    "Mongo",
    "Net",
    "Network",
    "RateLimit",
    "Redis",
    "Retention",
    "Settings",
    "SettingsError",
    "Spool",
    "Webhook",
    "check_webhook_secret",
    "is_setting",
    "load",
    "meant_by",
    "name_of",
    "overlooked",
    "show",
]
