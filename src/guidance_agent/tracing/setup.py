"""Whether this process traces, and where to: decided by the settings and by the variables that other tools use.

    tracing      on when
    auto         an address is set, the application has a tracer provider, or a local Phoenix runs
    on           always; without any of these to where a local Phoenix listens by default
    off          never
    console      always, as lines on the standard error

What is looked at, in this order: `trace.endpoint`, the application's provider, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`,
`OTEL_EXPORTER_OTLP_ENDPOINT`, `PHOENIX_COLLECTOR_ENDPOINT`, a local Phoenix. `OTEL_SDK_DISABLED=true` switches all off.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from guidance_agent.errors import ConfigurationError
from guidance_agent.settings import Amounts, Settings
from guidance_agent.tracing import attributes as names
from guidance_agent.tracing.export import ExportLimits, ExportThread, Sink
from guidance_agent.tracing.foreign import ForeignTracer, application_provider
from guidance_agent.tracing.otlp import Endpoint, OtlpSink
from guidance_agent.tracing.preparing import LONGEST_VALUE, NoRedaction, Preparation, Redactor
from guidance_agent.tracing.redaction_key import load_key
from guidance_agent.tracing.sinks import ConsoleSink, ForeignSink
from guidance_agent.tracing.tracer import NO_TRACING, Tracing

__all__ = [
    "DEFAULT_ENDPOINT",
    "DEFAULT_PROJECT",
    "FindLocal",
    "certificate_of",
    "is_off",
    "open_tracing",
    "phoenix_base",
    "redactor_of",
    "request_headers",
    "resource_of",
]

DEFAULT_PROJECT = "guidance-agent"
DEFAULT_ENDPOINT = "http://127.0.0.1:6006"
TRACES_PATH = "/v1/traces"

FindLocal = Callable[[], "str | None"]
"""Returns the address of a Phoenix server that runs on this machine for us; may read files."""

_logger = logging.getLogger("guidance_agent.tracing")


class _Found(NamedTuple):
    url: str
    variable: str


def open_tracing(
    settings: Settings, environ: Mapping[str, str], *, version: str, find_local: FindLocal | None = None
) -> Tracing:
    """Return the tracing of a process. Reads files: not on an event loop.

    Args:
        settings: `tracing` and the section `trace`.
        environ: Where the standard variables are read.
        version: Version of the package.
        find_local: Looks for a Phoenix server of our own.

    Raises:
        ConfigurationError: an address or a limit is malformed; the message names the variable.
    """
    if is_off(settings, environ):
        return NO_TRACING
    limits, given = _limits(environ), settings.trace.user_key
    foreign: ForeignTracer | None = None
    sink: Sink
    if settings.tracing == "console":
        sink = ConsoleSink()
    elif settings.trace.endpoint is None and (provider := application_provider()) is not None:
        foreign, sink = ForeignTracer(provider, version=version), ForeignSink()
    else:
        found = _endpoint(settings, environ, find_local)
        if found is None:
            return NO_TRACING
        sink = OtlpSink(found, resource_of(settings, environ, version=version), version=version)
    longest = _integer(environ, "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT")
    key = load_key(settings.data_dir, None if given is None else given.get_secret_value())
    preparation = Preparation(redactor_of(settings), longest=longest or LONGEST_VALUE, key=key)
    outlet = ExportThread(sink, preparation, limits)
    outlet.start()
    return Tracing(outlet, user_key=key, foreign=foreign)


def is_off(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Return whether tracing is switched off, here or for all of OpenTelemetry."""
    return settings.tracing == "off" or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def phoenix_base(settings: Settings, environ: Mapping[str, str], find_local: FindLocal | None = None) -> str | None:
    """Return the address of Phoenix's pages and REST interface, as far as the settings tell one; None if they do not.

    Raises:
        ConfigurationError: the address is malformed.
    """
    if settings.trace.phoenix:
        return _checked(_Found(settings.trace.phoenix, "GUIDANCE_TRACE__PHOENIX")).removesuffix("/")
    found = _address(settings, environ, find_local)
    return None if found is None else _checked(found).removesuffix("/").removesuffix(TRACES_PATH)


def resource_of(settings: Settings, environ: Mapping[str, str], *, version: str) -> dict[str, str]:
    """Return what is said of the process: the service, the project, and what `OTEL_RESOURCE_ATTRIBUTES` says."""
    made = {
        names.SERVICE_NAME: DEFAULT_PROJECT,
        names.SERVICE_VERSION: version,
        "telemetry.sdk.name": "guidance_agent",
        "telemetry.sdk.language": "python",
    }
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, equals, value = pair.partition("=")
        if equals and key.strip():
            made[unquote(key.strip())] = unquote(value.strip())
    if service := environ.get("OTEL_SERVICE_NAME"):
        made[names.SERVICE_NAME] = service
    project = settings.trace.project or environ.get("PHOENIX_PROJECT_NAME")
    if project or names.PROJECT_NAME not in made:
        made[names.PROJECT_NAME] = project or DEFAULT_PROJECT
    return made


def _endpoint(settings: Settings, environ: Mapping[str, str], find_local: FindLocal | None) -> Endpoint | None:
    found = _address(settings, environ, find_local)
    if found is None:
        if settings.tracing != "on":
            return None
        found = _Found(DEFAULT_ENDPOINT + TRACES_PATH, "tracing")
    url = _checked(found)
    protocol = _first(environ, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if found.variable.startswith("OTEL_") and protocol is not None and protocol[1] != "http/protobuf":
        problem = (
            f"{protocol[0]}={protocol[1]!r} cannot be spoken: traces leave as OTLP over HTTP. Set it to "
            f"'http/protobuf' and {found.variable} to the collector's HTTP port (4318, or 6006 at Phoenix), or "
            "GUIDANCE_TRACING=off."
        )
        if settings.tracing == "on":
            raise ConfigurationError(problem)
        _logger.warning("Nothing is traced: %s", problem)
        return None
    compression = _value(environ, "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION")
    return Endpoint(
        url,
        headers=request_headers(environ),
        compress=compression == "gzip",
        certificate=certificate_of(environ),
        client_certificate=_client_certificate(environ),
    )


def _address(settings: Settings, environ: Mapping[str, str], find_local: FindLocal | None) -> _Found | None:
    if settings.trace.endpoint:
        return _Found(_with_path(settings.trace.endpoint), "GUIDANCE_TRACE__ENDPOINT")
    if traces := environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip():
        return _Found(traces, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    for variable in ("OTEL_EXPORTER_OTLP_ENDPOINT", "PHOENIX_COLLECTOR_ENDPOINT"):
        if base := environ.get(variable, "").strip():
            return _Found(_with_path(base), variable)
    local = None if find_local is None else find_local()
    return None if local is None else _Found(_with_path(local), "the local Phoenix")


def _with_path(base: str) -> str:
    base = base.rstrip("/")
    return base if base.endswith(TRACES_PATH) else base + TRACES_PATH


def _checked(found: _Found) -> str:
    try:
        parts = urlsplit(found.url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(character.isspace() or ord(character) < 32 for character in found.url):
        shown = found.url.removesuffix(TRACES_PATH) if found.variable.endswith("OTLP_ENDPOINT") else found.url
        raise ConfigurationError(
            f"{found.variable}={_without_password(shown)!r} is no address of a collector. Write it like "
            "'http://127.0.0.1:6006', or set GUIDANCE_TRACING=off."
        )
    return found.url


def _without_password(url: str) -> str:
    before, at, after = url.rpartition("@")
    return f"{before.partition('//')[0]}//…@{after}" if at else url


def request_headers(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that the variables of Phoenix and OpenTelemetry ask for, in lower case.

    Raises:
        ConfigurationError: they cannot be read; the message names the variable.
    """
    made: dict[str, str] = {}
    if key := environ.get("PHOENIX_API_KEY"):
        made["authorization"] = f"Bearer {key}"
    for variable in ("PHOENIX_CLIENT_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"):
        for pair in environ.get(variable, "").split(","):
            name, equals, value = pair.partition("=")
            if not pair.strip():
                continue
            name, value = unquote(name.strip()).lower(), unquote(value.strip())
            if not equals or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
                raise ConfigurationError(
                    f"{variable} cannot be read. Write headers as 'name=value,name=value', percent-encoded."
                )
            if any(ord(character) < 32 or ord(character) > 255 for character in value):
                raise ConfigurationError(f"{variable} holds a value for {name!r} that no header can have.")
            made[name] = value
    return made


def certificate_of(environ: Mapping[str, str]) -> str | None:
    """Return the file of authorities that a collector's certificate is checked with; None is the system's."""
    return _value(environ, "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")


def _client_certificate(environ: Mapping[str, str]) -> str | tuple[str, str] | None:
    certificate = _value(
        environ, "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
    )
    key = _value(environ, "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY")
    if certificate is None:
        return None
    return certificate if key is None else (certificate, key)


def _limits(environ: Mapping[str, str]) -> ExportLimits:
    default = ExportLimits()
    spans = _integer(environ, "OTEL_BSP_MAX_QUEUE_SIZE") or default.spans
    batch = _integer(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE") or default.batch
    delay = _integer(environ, "OTEL_BSP_SCHEDULE_DELAY")
    timeout = _integer(
        environ, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_BSP_EXPORT_TIMEOUT"
    )
    return default._replace(
        spans=spans,
        batch=min(batch, spans),
        delay=default.delay if delay is None else delay / 1_000,
        # The standard has the exporter's own in milliseconds, too, but for a time had it in seconds.
        timeout=default.timeout if not timeout else min(default.timeout, max(0.05, timeout / 1_000)),
    )


def redactor_of(settings: Settings) -> Redactor:
    """Return what takes personal data out of texts that leave the process, as the settings say."""
    return _Redaction(settings.trace.amounts) if settings.trace.redact else NoRedaction()


class _Redaction:
    """The redaction of the package, read when the first text leaves: its rules take longer to load than all else."""

    def __init__(self, amounts: Amounts) -> None:
        self._amounts = amounts
        self._made: Redactor | None = None

    def redact(self, key: str, value: str, names: tuple[str, ...]) -> str:
        if self._made is None:
            from guidance_agent.tracing.redaction import Redactor as Rules
            from guidance_agent.tracing.redaction_spans import SpanRedaction

            self._made = SpanRedaction(Rules(amounts=self._amounts))
        return self._made.redact(key, value, names)


def _first(environ: Mapping[str, str], *variables: str) -> tuple[str, str] | None:
    return next(((name, value) for name in variables if (value := environ.get(name, "").strip())), None)


def _value(environ: Mapping[str, str], *variables: str) -> str | None:
    found = _first(environ, *variables)
    return None if found is None else found[1]


def _integer(environ: Mapping[str, str], *variables: str) -> int | None:
    found = _first(environ, *variables)
    if found is None:
        return None
    variable, value = found
    try:
        number = int(value)
    except ValueError:
        number = -1
    if number < 0:
        raise ConfigurationError(f"{variable}={value!r} is no whole number of 0 or more. Correct it, or unset it.")
    return number
