"""Customers in traces: the same short code for the same customer, and no way back from it without the key.

A plain hash of a customer id is as good as the id to whoever can list the ids. A code made with a key is not.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import logging
import os
import secrets
import time
from pathlib import Path

from guidance_agent.errors import ConfigurationError

__all__ = ["KEY_FILE", "load_key", "pseudonym"]

KEY_FILE = "tracing.key"
"""The name of the key's file in the data folder."""

_LEAST_BYTES = 16
_KEY_BYTES = 32
_WRITING_TAKES = 2.0
_logger = logging.getLogger("guidance_agent.tracing")


def pseudonym(customer_id: str, key: bytes) -> str:
    """Return 17 hexadecimal characters for a customer: HMAC-SHA-256, equal for equal ids under one key.

    The first is always `c`, so that no number of sixteen digits can come out, which redaction would take for a card.
    """
    digest = hmac.new(key, customer_id.encode("utf-8", "surrogatepass"), hashlib.sha256)
    return f"c{digest.hexdigest()[:16]}"


def load_key(data_dir: Path, configured: str | None = None) -> bytes:
    """Return the key of this installation, making it once if there is none; reads and writes files.

    Without a folder that can be written the key is this process's own, and a warning says so: customers' codes then
    change with every process, and no turn fails for it.

    Args:
        data_dir: Where the key file is, or is made with access for its owner alone.
        configured: The key from the settings, at least 16 bytes; several machines share one so.

    Raises:
        ConfigurationError: if the configured key is too short, or the key file holds no key.
    """
    if configured is not None:
        key = configured.encode()
        if len(key) < _LEAST_BYTES:
            raise ConfigurationError(
                f"The tracing key has {len(key)} bytes and needs at least {_LEAST_BYTES}. "
                "Make one with: python -c 'import secrets; print(secrets.token_hex(32))'"
            )
        return key
    path = data_dir / KEY_FILE
    try:
        if not path.exists():
            data_dir.mkdir(parents=True, exist_ok=True)
            _make(path)
        return _read(path)
    except OSError as error:
        _logger.warning(
            "The tracing key cannot be kept in %s (%s). Customers' codes in traces are of this process alone; make the "
            "folder writable, or set the key in the settings.",
            path,
            error.strerror or error,
        )
        return secrets.token_bytes(_KEY_BYTES)


def _make(path: Path) -> None:
    """Make the key file whole or not at all; of two processes that try, one makes it."""
    own = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        _write(own)
        os.link(own, path)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK}:
            raise
        # A file system without hard links: the file is there before it is filled, and readers wait for it.
        with contextlib.suppress(FileExistsError):
            _write(path)
    finally:
        own.unlink(missing_ok=True)


def _write(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_hex(_KEY_BYTES).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    deadline = time.monotonic() + _WRITING_TAKES
    while True:
        written = path.read_text(encoding="ascii", errors="replace").strip()
        try:
            if len(key := bytes.fromhex(written)) == _KEY_BYTES:
                break
        except ValueError:
            pass
        if written or time.monotonic() > deadline:
            raise ConfigurationError(f"The tracing key file {str(path)!r} holds no key. Delete it; a new one is made.")
        time.sleep(0.02)
    if path.stat().st_mode & 0o077:
        _logger.warning("The tracing key file %s could be read by others; now only its owner can.", path)
        path.chmod(0o600)
    return key
