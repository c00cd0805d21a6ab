"""Service accounts of Google's, as they hand out the keys; these exist nowhere."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

EMAIL = "imgsvc@a-project.iam.gserviceaccount.com"


@dataclass(frozen=True)
class Account:
    """An account and its key."""

    public_key: rsa.RSAPublicKey
    info: dict[str, str]

    @property
    def key_base64(self) -> str:
        """What ``GCP_KEY_BASE64`` holds."""
        return base64.b64encode(json.dumps(self.info).encode()).decode()


def new_account(token_uri: str = "http://127.0.0.1:9/token") -> Account:
    """An account of its own; its tokens are to be had at ``token_uri``."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    info = {
        "type": "service_account",
        "project_id": "a-project",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": EMAIL,
        "token_uri": token_uri,
    }
    return Account(key.public_key(), info)
