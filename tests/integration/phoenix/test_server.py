"""The real Phoenix server, as this package starts it: on this machine only, and nothing of it leaves."""

from __future__ import annotations

import http.client
import json
import re
import urllib.request
from pathlib import Path

import psutil
import pytest

from guidance_agent.phoenix import LocalPhoenix
from guidance_agent.phoenix.environment import Environment
from guidance_agent.phoenix.server_side.confined import is_loopback


def status(phoenix: LocalPhoenix, path: str, *, method: str = "GET", body: str | None = None, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", phoenix.port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_it_listens_on_loopback_only_for_http_and_for_grpc(phoenix: LocalPhoenix) -> None:
    process = psutil.Process(phoenix.pid)
    sockets = [each for one in (process, *process.children(recursive=True)) for each in one.net_connections("inet")]
    listening = {(each.laddr.ip, each.laddr.port) for each in sockets if each.status == psutil.CONN_LISTEN}
    assert {port for _, port in listening} == {phoenix.port, phoenix.grpc_port}
    assert all(is_loopback(host) for host, _ in listening), listening


@pytest.mark.parametrize("path", ["/", "/graphql", "/v1/projects", "/healthz"])
def test_a_foreign_host_is_refused(phoenix: LocalPhoenix, path: str) -> None:
    for host in ("evil.example", f"evil.example:{phoenix.port}", "127.0.0.1.evil.example", "192.0.2.1", ""):
        assert status(phoenix, path, Host=host) == 403, host


def test_a_page_of_another_site_is_refused(phoenix: LocalPhoenix) -> None:
    query = json.dumps({"query": "{ projects { edges { node { name } } } }"})
    own = f"http://127.0.0.1:{phoenix.port}"
    kind = {"content-type": "application/json"}
    assert status(phoenix, "/graphql", method="POST", body=query, **kind, origin=own) == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert status(phoenix, "/graphql", method="POST", body=query, **kind, origin=origin) == 403, origin


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_gets_its_pages_and_its_data(phoenix: LocalPhoenix, host: str) -> None:
    with urllib.request.urlopen(f"http://{host}:{phoenix.port}/", timeout=30) as page:
        assert "text/html" in page.headers["content-type"]
    with urllib.request.urlopen(f"{phoenix.endpoint}/v1/projects", timeout=30) as answer:  # noqa: S310
        names = [project["name"] for project in json.load(answer)["data"]]
    assert "default" in names


def test_it_is_told_to_send_nothing_and_gets_no_key_of_ours(phoenix: LocalPhoenix) -> None:
    variables = psutil.Process(phoenix.pid).environ()
    assert variables["PHOENIX_TELEMETRY_ENABLED"] == "false"
    assert variables["PHOENIX_ALLOW_EXTERNAL_RESOURCES"] == "false"
    ours = [name for name in variables if name.startswith("GUIDANCE_") or name.endswith(("_KEY", "_TOKEN", "_URL"))]
    assert not ours


def test_its_page_loads_nothing_from_elsewhere_and_the_mcp_server_is_off(phoenix: LocalPhoenix) -> None:
    with urllib.request.urlopen(f"{phoenix.endpoint}/", timeout=30) as page:  # noqa: S310
        text = page.read().decode()
    assert re.findall(r"""(?:src|href)=["'](?!https?:|//)[^"']+""", text)
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//[^"']+""", text)
    assert status(phoenix, "/mcp", method="POST", body="{}", **{"content-type": "application/json"}) in (404, 405)


def test_its_database_is_in_the_data_folder_and_for_its_owner_only(phoenix: LocalPhoenix) -> None:
    folder = Path(psutil.Process(phoenix.pid).environ()["PHOENIX_WORKING_DIR"])
    database = folder / "phoenix.db"
    assert database.is_file()
    assert database.stat().st_mode & 0o077 == 0
    assert folder.stat().st_mode & 0o077 == 0


def test_the_environment_holds_what_the_list_names_and_is_consistent(phoenix_environment: Environment) -> None:
    assert phoenix_environment.state().ready
    log = (phoenix_environment.all_folders.parent / "install.log").read_text(encoding="utf-8")
    assert "Successfully installed" in log
    assert f"arize-phoenix-{phoenix_environment.pinned.version}" in log
