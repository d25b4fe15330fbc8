"""Where Phoenix is: its pages for people, and its REST interface for what is said of spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

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
        return f"{self.place}/redirects/traces/{quote(trace_id, safe='')}"

    def span_page(self, span_id: str) -> str:
        """Return the page of a span within its trace, by its id in hexadecimal digits."""
        return f"{self.place}/redirects/spans/{quote(span_id, safe='')}"


def find_phoenix(settings: Settings, environ: Mapping[str, str]) -> PhoenixAddress | None:
    """Return where Phoenix is by settings and environment, or the one that runs here; None where nothing tells.

    Reads files: not on an event loop. It says nothing about whether Phoenix answers, or whether it is one.

    Raises:
        ConfigurationError: an address or a header is malformed; the message names the variable.
    """
    from guidance_agent.phoenix.local import local_phoenix
    from guidance_agent.tracing.setup import DEFAULT_ENDPOINT, phoenix_base, request_headers

    def local() -> str | None:
        server = local_phoenix(settings.data_dir)
        return None if server is None else server.endpoint

    base = phoenix_base(settings, environ, local)
    if base is None and settings.tracing == "on":
        base = DEFAULT_ENDPOINT
    if base is None:
        return None
    certificates = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")
    return PhoenixAddress(
        base_url=base,
        headers=request_headers(environ),
        certificate=next((path for name in certificates if (path := environ.get(name, "").strip())), None),
    )


def phoenix_to_annotate(settings: Settings, environ: Mapping[str, str]) -> PhoenixAddress | None:
    """Return where annotations go; None where spans do not go either. Reads files, raises as `find_phoenix`."""
    is_off = settings.tracing in ("off", "console") or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return None if is_off else find_phoenix(settings, environ)
