"""Signatures of deltas: Ed25519, by `cryptography`, which is imported when a key is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hfnet_edge.errors import InputError
from hfnet_edge.map.delta import Sign, Verify
from hfnet_edge.shell.extras import needs
from hfnet_edge.shell.reading import read_bytes

MAX_KEY = 1 << 16  # bytes of a file
MAKE = "make it with `openssl genpkey -algorithm ed25519`, and its public half with `openssl pkey -pubout`"


def signer(private: Path) -> Sign:
    """What signs with a private key (PEM, without a password). Raises InputError, InstallError."""
    from_pem = _serialization().load_pem_private_key
    key = _load(private, lambda text: from_pem(text, password=None))
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{private} is not a private Ed25519 key", MAKE)
    return key.sign


def verifier(public: Path) -> Verify:
    """What verifies with a public key (PEM). Raises InputError, InstallError."""
    key = _load(public, _serialization().load_pem_public_key)
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{public} is not a public Ed25519 key", MAKE)

    def verify(signed: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    return verify


def _serialization() -> Any:
    needs("signing", "cryptography")
    from cryptography.hazmat.primitives import serialization

    return serialization


def _load(path: Path, parse: Any) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return parse(read_bytes(path, MAX_KEY))
    except OSError as e:
        raise InputError(f"cannot read the key {path}: {e.strerror or e}", "check its name") from e
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:  # TypeError: it has a password
        raise InputError(f"{path} does not hold the key as PEM without a password", MAKE) from e
