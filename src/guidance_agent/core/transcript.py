"""A fingerprint of a conversation that grows entry by entry, so that a history can be compared without its texts.

The fingerprint after an entry is SHA-256 over the fingerprint before it, the role and the SHA-256 of the text. A turn
adds its question and the text that was delivered; one that delivered nothing adds nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from guidance_agent.core.types import ConversationRole

__all__ = ["EMPTY_TRANSCRIPT", "extend_transcript", "text_hash", "transcript_hash"]

EMPTY_TRANSCRIPT = hashlib.sha256(b"").hexdigest()


def text_hash(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def extend_transcript(fingerprint: str, role: ConversationRole, hash_of_text: str) -> str:
    """Return the fingerprint after one more entry."""
    return hashlib.sha256(f"{fingerprint}\n{role}\n{hash_of_text}".encode()).hexdigest()


def transcript_hash(entries: Iterable[tuple[ConversationRole, str]]) -> str:
    """Return the fingerprint of a whole conversation."""
    fingerprint = EMPTY_TRANSCRIPT
    for role, text in entries:
        fingerprint = extend_transcript(fingerprint, role, text_hash(text))
    return fingerprint
