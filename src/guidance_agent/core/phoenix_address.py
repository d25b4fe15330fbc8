"""Where Phoenix is: its pages for people, and its REST interface for what is said of spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from guidance_agent.phoenix.pages import page_of

if TYPE_CHECKING:
    from guidance_agent.settings import Settings

__all__ = ["PhoenixAddress", "find_phoenix", "phoenix_to_annotate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoenixAddress:
    """An address without a path of Phoenix's own, and what a request to it needs.

    Attributes:
        certificate: File of authorities, where the system's do not know the server's certificate.
    """

    base_url: str
    headers: Mapping[str, str]
    certificate: str | None = None

    @property
    def place(self) -> str:
        """The address as a log may have it."""
        parts = urlsplit(self.base_url)
        port = "" if parts.port is None else f":{parts.port}"
        return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"

    def trace_page(self, trace_id: str) -> str:
        """Return the page of a trace, by its id in hexadecimal digits."""
        return page_of(self.place, "traces", trace_id)

    def span_page(self, span_id: str) -> str:
        """Return the page of a span within its trace, by its id in hexadecimal digits."""
        return page_of(self.place, "spans", span_id)


def find_phoenix(settings: Settings, environ: Mapping[str, str]) -> PhoenixAddress | None:
    """Return where Phoenix is by settings and environment, or the one that runs here; None where nothing tells.

    Reads files: not on an event loop. It says nothing about whether Phoenix answers, or whether it is one.

    Raises:
        ConfigurationError: an address or a header is malformed; the message names the variable.
    """
    from guidance_agent.phoenix.local import local_endpoint
    from guidance_agent.tracing.setup import DEFAULT_ENDPOINT, certificate_of, phoenix_base, request_headers

    base = phoenix_base(settings, environ, partial(local_endpoint, settings.data_dir))
    if base is None and settings.tracing == "on":
        base = DEFAULT_ENDPOINT
    if base is None:
        return None
    return PhoenixAddress(base_url=base, headers=request_headers(environ), certificate=certificate_of(environ))


def phoenix_to_annotate(settings: Settings, environ: Mapping[str, str]) -> PhoenixAddress | None:
    """Return where annotations go; None where spans do not go either. Reads files, raises as `find_phoenix`."""
    from guidance_agent.tracing.setup import is_off

    return None if settings.tracing == "console" or is_off(settings, environ) else find_phoenix(settings, environ)
