"""Addresses of Phoenix's pages, made of names and of OpenTelemetry's ids: Phoenix leads from these to its own."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

__all__ = ["page_of"]


def page_of(base_url: str, kind: Literal["projects", "sessions", "spans", "traces"], name: str) -> str:
    """Return the page of a project or session by its name, or of a trace or span by its id in hexadecimal digits.

    Args:
        base_url: Phoenix's address, without a slash at its end.
    """
    return f"{base_url}/redirects/{kind}/{quote(name, safe='')}"
