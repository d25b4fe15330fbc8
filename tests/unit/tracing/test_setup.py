"""Whether there is tracing, and where to: settings and the variables of other tools, each alone and together."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from guidance_agent.errors import ConfigurationError
from guidance_agent.settings import Settings
from guidance_agent.tracing import NO_TRACING, Tracing
from guidance_agent.tracing.export import ExportThread
from guidance_agent.tracing.otlp import OtlpSink
from guidance_agent.tracing.setup import open_tracing, phoenix_base, resource_of
from guidance_agent.tracing.sinks import ConsoleSink
from tests.collector import Collector

LOCAL = "http://127.0.0.1:7007"


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Any]:
    made: list[Tracing] = []

    def open_one(environ: Mapping[str, str] | None = None, *, local: str | None = None, **settings: Any) -> Tracing:
        loaded = Settings.load(data_dir=tmp_path, **settings)
        tracing = open_tracing(loaded, environ or {}, version="1", find_local=lambda: local)
        made.append(tracing)
        return tracing

    yield open_one
    for tracing in made:
        tracing.close(0.1)


def sink_of(tracing: Tracing) -> Any:
    assert isinstance(tracing.outlet, ExportThread)
    return tracing.outlet._sink


def url_of(tracing: Tracing) -> str:
    sink = sink_of(tracing)
    assert isinstance(sink, OtlpSink)
    return sink._endpoint.url


@pytest.mark.parametrize("tracing", ["auto", "off"])
def test_without_a_collector_nothing_is_traced(opened: Any, tracing: str, tmp_path: Path) -> None:
    assert opened(tracing=tracing) is NO_TRACING
    assert list(tmp_path.iterdir()) == []


def test_no_span_waits_for_the_exporters_thread_to_begin(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tracing = opened(tracing="console")
    monkeypatch.setattr(threading.Thread, "start", None)
    tracing.span("turn", "AGENT").end()
    assert tracing.flush(10.0)


def test_off_is_off_whatever_else_is_set(opened: Any) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    assert opened(environ, local=LOCAL, tracing="off") is NO_TRACING
    assert opened(environ | {"OTEL_SDK_DISABLED": "True"}, tracing="on") is NO_TRACING


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, "http://127.0.0.1:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://otlp.example/base/"}, "https://otlp.example/base/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/own"}, "http://127.0.0.1:4318/own"),
        ({"PHOENIX_COLLECTOR_ENDPOINT": "http://127.0.0.1:6006"}, "http://127.0.0.1:6006/v1/traces"),
        ({"PHOENIX_COLLECTOR_ENDPOINT": "http://127.0.0.1:6006/v1/traces"}, "http://127.0.0.1:6006/v1/traces"),
        (
            {
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/a",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:2",
                "PHOENIX_COLLECTOR_ENDPOINT": "http://127.0.0.1:3",
            },
            "http://127.0.0.1:1/a",
        ),
        ({}, LOCAL + "/v1/traces"),
    ],
)
def test_the_address_is_found_where_others_look_for_it(opened: Any, environ: dict[str, str], url: str) -> None:
    assert url_of(opened(environ, local=LOCAL)) == url


def test_our_own_setting_wins(opened: Any) -> None:
    environ = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/a"}
    assert url_of(opened(environ, trace={"endpoint": "http://127.0.0.1:9"})) == "http://127.0.0.1:9/v1/traces"


def test_on_without_an_address_is_where_phoenix_listens_by_default(opened: Any) -> None:
    assert url_of(opened(tracing="on")) == "http://127.0.0.1:6006/v1/traces"


def test_console_writes_lines_and_asks_no_collector(opened: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tracing = opened({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, tracing="console")
    assert isinstance(sink_of(tracing), ConsoleSink)
    tracing.span("turn", "AGENT").end(outcome="completed")
    assert tracing.flush(5)
    out, err = capsys.readouterr()
    assert out == ""
    assert '"span": "turn"' in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "PHOENIX_COLLECTOR_ENDPOINT"]
)
@pytest.mark.parametrize(
    "value", ["localhost:6006", "ftp://host", "http://", "http://host:port", "http://host:99999", "http://a b", "://"]
)
def test_a_malformed_address_names_its_variable(opened: Any, variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        opened({variable: value})
    assert variable in str(caught.value)
    assert repr(value)[1:-1] in str(caught.value)


def test_a_malformed_setting_is_named_and_a_password_is_not_told(opened: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        opened(trace={"endpoint": "gopher://user:secret@host"})
    assert "GUIDANCE_TRACE__ENDPOINT" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_protocol_that_is_not_spoken_is_told(opened: Any, caplog: pytest.LogCaptureFixture) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert opened(environ) is NO_TRACING
    assert "OTEL_EXPORTER_OTLP_PROTOCOL='grpc' cannot be spoken" in caplog.text
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_PROTOCOL='grpc' cannot be spoken"):
        opened(environ, tracing="on")


def test_keys_and_headers_of_phoenix_and_of_the_standard_are_sent(opened: Any) -> None:
    environ = {
        "PHOENIX_COLLECTOR_ENDPOINT": "http://127.0.0.1:6006",
        "PHOENIX_API_KEY": "key",
        "PHOENIX_CLIENT_HEADERS": "x-phoenix=1,x-both=phoenix",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-standard=a%20b, x-both = standard",
    }
    assert sink_of(opened(environ))._endpoint.headers == {
        "authorization": "Bearer key",
        "x-phoenix": "1",
        "x-both": "standard",
        "x-standard": "a b",
    }


@pytest.mark.parametrize("value", ["no equals", "b\xe4d=1", "a=b\x00", "sp ace=1"])
def test_headers_that_cannot_be_sent_name_their_variable(opened: Any, value: str) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_HEADERS": value}
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_HEADERS"):
        opened(environ)


def test_limits_come_from_the_standards_variables(opened: Any) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_BSP_MAX_QUEUE_SIZE": "100",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "500",
        "OTEL_BSP_SCHEDULE_DELAY": "250",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "700",
    }
    limits = opened(environ).outlet._limits
    assert (limits.spans, limits.batch, limits.delay, limits.timeout) == (100, 100, 0.25, 0.7)
    with pytest.raises(ConfigurationError, match="OTEL_BSP_MAX_QUEUE_SIZE='many'"):
        opened(environ | {"OTEL_BSP_MAX_QUEUE_SIZE": "many"})


def test_a_longer_timeout_than_ours_is_not_taken(opened: Any) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TIMEOUT": "10000"}
    assert opened(environ).outlet._limits.timeout == 2.0


def test_the_resource_says_service_and_project(tmp_path: Path) -> None:
    settings = Settings.load(data_dir=tmp_path)
    plain = resource_of(settings, {}, version="1.2")
    assert (plain["service.name"], plain["openinference.project.name"]) == ("guidance-agent", "guidance-agent")
    assert plain["service.version"] == "1.2"
    environ = {
        "OTEL_SERVICE_NAME": "chat",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,deployment.environment=pro%20d,broken",
        "PHOENIX_PROJECT_NAME": "pensions",
    }
    full = resource_of(settings, environ, version="1")
    assert (full["service.name"], full["deployment.environment"]) == ("chat", "pro d")
    assert full["openinference.project.name"] == "pensions"
    named = Settings.load(data_dir=tmp_path, trace={"project": "mine"})
    assert resource_of(named, environ, version="1")["openinference.project.name"] == "mine"
    of_attributes = {"OTEL_RESOURCE_ATTRIBUTES": "openinference.project.name=theirs"}
    assert resource_of(settings, of_attributes, version="1")["openinference.project.name"] == "theirs"


def test_phoenixs_pages_are_where_its_spans_go(tmp_path: Path) -> None:
    settings = Settings.load(data_dir=tmp_path)
    assert phoenix_base(settings, {}) is None
    assert phoenix_base(settings, {}, lambda: LOCAL) == LOCAL
    environ = {"PHOENIX_COLLECTOR_ENDPOINT": "http://127.0.0.1:6006/v1/traces"}
    assert phoenix_base(settings, environ) == "http://127.0.0.1:6006"


def test_the_settings_reach_the_collector(opened: Any) -> None:
    with Collector() as collector:
        tracing = opened({"PHOENIX_PROJECT_NAME": "pensions"}, trace={"endpoint": collector.url, "redact": False})
        tracing.span("turn", "AGENT").end()
        assert tracing.flush(5)
        assert collector.resources[0]["openinference.project.name"] == "pensions"


@pytest.mark.parametrize("tracing", ["off", "auto", "on"])
def test_opening_loads_nothing_of_opentelemetry(tracing: str, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from guidance_agent.settings import Settings\n"
        "from guidance_agent.tracing.setup import open_tracing\n"
        f"tracing = open_tracing(Settings.load(data_dir={str(tmp_path)!r}, tracing={tracing!r}), {{}}, version='1')\n"
        "heavy = {'opentelemetry', 'openinference', 'requests', 'google', 'urllib3'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
