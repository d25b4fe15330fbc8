"""`guidance-agent trace`, as a process: a turn as a tree from its records, and its page where a Phoenix answers."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.testing import scripted_simulator

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Rows = Callable[[str], list[dict[str, Any]]]

STEER = "If I were you, I would take the whole pot out now."
QUESTION = "May Zebedee take his pension at 55?"
UNTRACED = {"GUIDANCE_TRACING": "off"}


class Backend:
    """A tracing backend on a real socket; Phoenix or another one, as `is_phoenix` says. Remembers what it was told."""

    def __init__(self) -> None:
        self.is_phoenix = True
        self.paths: list[str] = []
        self.annotations: list[dict[str, Any]] = []
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, b"OK")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                path = self.path.partition("?")[0]
                if path != "/v1/span_annotations":
                    self._answer(200, b"")
                elif not backend.is_phoenix:
                    self._answer(404, b"404 page not found")
                else:
                    backend.annotations += json.loads(body)["data"]
                    self._answer(200, b'{"data": []}')

            def _answer(self, status: int, body: bytes) -> None:
                backend.paths.append(self.path.partition("?")[0])
                self.send_response(status)
                if backend.is_phoenix:
                    self.send_header("x-phoenix-server-version", "20.26.1")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Backend:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend() as running:
        yield running


@pytest.fixture(scope="module")
def traced(run: Run, rows: Rows, backend: Backend) -> str:
    """The id of a turn that was traced, whose answer failed, and whose gate had something to do."""
    with scripted_simulator(text=f"You can leave the pot invested. {STEER}") as scripted:
        environment = {name: value for name, value in scripted.env.items() if name != "GUIDANCE_DATA_DIR"}
        environment |= {
            "GUIDANCE_TRACE__ENDPOINT": backend.url,
            "GUIDANCE_GATE__ACTIONS": '{"advice_boundary": "flag"}',
        }
        asked = run("ask", QUESTION, "--persona", "janet", "-q", **environment)
        assert asked.returncode == 0, asked.stderr
        judged = run("worker", "--once", "--json", **environment)
        assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout)["annotations"] == {"sent": 1, "waiting": 0}
    (turn,) = rows("select id, judgement from turns")
    assert turn["judgement"] == "failed"
    return str(turn["id"])


def report(run: Run, turn_id: str, **environment: str) -> dict[str, Any]:
    result = run("trace", turn_id, "--json", **environment)
    assert (result.returncode, result.stderr) == (0, "")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_worker_delivers_the_verdict_to_the_span_of_the_answer(
    run: Run, traced: str, backend: Backend, rows: Rows
) -> None:
    (annotation,) = backend.annotations
    (turn,) = (row for row in rows("select * from turns") if row["id"] == traced)
    assert (annotation["name"], annotation["result"]["label"]) == ("compliance", "failed")
    assert annotation["span_id"] == turn["answer_span_id"]
    assert "advice_boundary" in annotation["metadata"]["failed_checks"]


def test_a_turn_is_shown_as_a_tree_with_its_page(run: Run, traced: str, backend: Backend, rows: Rows) -> None:
    (turn,) = (row for row in rows("select * from turns") if row["id"] == traced)
    result = run("trace", traced, GUIDANCE_TRACE__ENDPOINT=backend.url)
    assert (result.returncode, result.stderr) == (0, "")
    trace_id = turn["traceparent"].split("-")[1]
    assert f"{backend.url}/redirects/traces/{trace_id}\n" in result.stdout
    assert f"{backend.url}/redirects/spans/{turn['answer_span_id']}\n" in result.stdout
    for told in (
        f"turn {traced}: completed",
        "SIMULATED",
        "retrieval: ",
        "reasoning: ",
        "guidance: ",
        "judge: ",
        "first token ",
        "read from the cache",
        "cache: first write",
        "gate: flagged (advice_boundary) at ",
        "verdict (live): not passed, by the judge",
        "failed: advice_boundary",
        "review because of fail, open",
        "annotation compliance: failed, delivered ",
        "cost: $",
    ):
        assert told in result.stdout
    assert "\x1b" not in result.stdout
    # In the order in which things happened.
    assert result.stdout.index("guidance: ") < result.stdout.index("gate: ") < result.stdout.index("verdict (live)")


def test_what_was_said_is_not_told(run: Run, traced: str, backend: Backend) -> None:
    for form in ((), ("--json",)):
        shown = run("trace", traced, *form, GUIDANCE_TRACE__ENDPOINT=backend.url).stdout
        for words in ("Zebedee", "whole pot", "invested", "Janet"):
            assert words not in shown


def test_the_json_has_one_shape(run: Run, traced: str, backend: Backend) -> None:
    found = report(run, traced, GUIDANCE_TRACE__ENDPOINT=backend.url)
    assert {name: sorted(value) for name, value in found.items() if isinstance(value, dict)} == {
        "turn": [
            "consultation_id",
            "delivered_length",
            "ended_at",
            "error",
            "events",
            "finish_reason",
            "first_text_seconds",
            "first_token_seconds",
            "id",
            "judgement",
            "model",
            "ordinal",
            "simulated",
            "started_at",
            "state",
            "text_length",
            "tokens_per_second",
            "total_seconds",
        ],
        "trace": ["answer", "answer_span_id", "phoenix", "trace", "trace_id", "why_not"],
        "retrieved": ["cases", "facts", "memories", "rules"],
        "cost": ["calls_without_price", "known_usd", "total_usd", "usage_estimated"],
    }
    rows = {name: sorted(value[0]) for name, value in found.items() if isinstance(value, list) and value}
    assert rows["calls"] == [
        "after",
        "attempts",
        "cache_outcome",
        "cache_read_tokens",
        "cache_write_tokens",
        "chunks",
        "cost_usd",
        "error",
        "finish_reason",
        "first_token_seconds",
        "id",
        "input_tokens",
        "model",
        "operation",
        "outcome",
        "output_tokens",
        "provider",
        "reasoning_tokens",
        "request_id",
        "requested_model",
        "simulated",
        "total_seconds",
        "transport",
        "usage_estimated",
    ]
    assert rows["gate_actions"] == ["action", "after", "asked", "check", "end", "number", "start"]
    assert rows["verdicts"] == [
        "after",
        "by",
        "confidence",
        "cost_usd",
        "failed_checks",
        "id",
        "judge_model",
        "needs_review",
        "passed",
        "purpose",
        "readable",
    ]
    assert rows["corrections"] == ["after", "delivered_at", "end", "id", "start", "verdict_id"]
    assert rows["reviews"] == ["cause", "decided_at", "decision", "id", "opened_at", "status", "verdict_id"]
    assert rows["annotations"] == ["annotator_kind", "attempts", "error", "label", "name", "score", "sent_at"]
    assert [call["operation"] for call in found["calls"]] == ["reasoning", "guidance", "judge"]
    assert found["trace"]["phoenix"] == backend.url
    assert found["cost"]["total_usd"] == pytest.approx(sum(call["cost_usd"] for call in found["calls"]))


def test_without_phoenix_the_tree_is_the_same(run: Run, traced: str, backend: Backend) -> None:
    seen = report(run, traced, GUIDANCE_TRACE__ENDPOINT=backend.url)
    nowhere = report(run, traced)
    gone = report(run, traced, GUIDANCE_TRACE__ENDPOINT="http://127.0.0.1:9")
    backend.is_phoenix = False
    try:
        other = report(run, traced, GUIDANCE_TRACE__ENDPOINT=backend.url)
    finally:
        backend.is_phoenix = True
    for unseen, why in ((nowhere, "guidance-agent phoenix"), (gone, "127.0.0.1:9"), (other, "is no Phoenix")):
        assert (unseen["trace"]["phoenix"], unseen["trace"]["trace"], unseen["trace"]["answer"]) == (None, None, None)
        assert why in unseen["trace"]["why_not"]
        assert unseen["trace"]["trace_id"] == seen["trace"]["trace_id"]
        assert {**unseen, "trace": None} == {**seen, "trace": None}


def test_a_turn_that_was_never_traced_has_its_tree(run: Run, traced: str, rows: Rows, backend: Backend) -> None:
    assert run("ask", "--no-reasoning", "-q", **UNTRACED).returncode == 0
    (turn,) = (row for row in rows("select * from turns") if row["id"] != traced)
    shown = run("trace", turn["id"], GUIDANCE_TRACE__ENDPOINT=backend.url)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "was not traced" in shown.stdout
    assert "guidance: " in shown.stdout and "waits for its verdict" in shown.stdout
    found = report(run, turn["id"])
    assert found["trace"] == {
        "trace_id": None,
        "answer_span_id": None,
        "phoenix": None,
        "trace": None,
        "answer": None,
        "why_not": "This turn was not traced.",
    }
    assert (found["verdicts"], found["annotations"], found["turn"]["judgement"]) == ([], [], "pending")


def test_a_turn_that_does_not_exist_is_named(run: Run, traced: str) -> None:
    for form in ((), ("--json",)):
        result = run("trace", "turn_unknown", *form)
        assert (result.returncode, result.stdout) == (ExitCode.USAGE, "")
        assert "'turn_unknown'" in result.stderr and "Traceback" not in result.stderr


def test_looking_makes_no_records(run: Run, tmp_path: Path) -> None:
    result = run("trace", "turn_x", "--data-dir", str(tmp_path / "new"))
    assert (result.returncode, result.stdout) == (ExitCode.USAGE, "")
    assert str(tmp_path / "new") in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_malformed_address_is_named_with_its_variable(run: Run, traced: str) -> None:
    result = run("trace", traced, GUIDANCE_TRACE__PHOENIX="not an address")
    assert result.returncode == ExitCode.CONFIGURATION
    assert "GUIDANCE_TRACE__PHOENIX" in result.stderr and "Traceback" not in result.stderr


def test_an_answer_is_annotated_by_the_process_that_gave_and_judged_it(
    run: Run, traced: str, backend: Backend, rows: Rows
) -> None:
    before = len(backend.annotations)
    result = run("ask", "-q", GUIDANCE_BACKGROUND="true", GUIDANCE_TRACE__ENDPOINT=backend.url)
    assert result.returncode == 0, result.stderr
    (annotation,) = backend.annotations[before:]
    (turn,) = rows("select * from turns order by started_at desc limit 1")
    assert annotation["span_id"] == turn["answer_span_id"]
    # The span is there before what is said of it.
    assert backend.paths.index("/v1/traces") < len(backend.paths) - 1 - backend.paths[::-1].index(
        "/v1/span_annotations"
    )
