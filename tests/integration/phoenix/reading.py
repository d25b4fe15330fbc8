"""Reading back what a Phoenix server has stored, through its REST interface, its GraphQL and its database."""

from __future__ import annotations

import json
import sqlite3
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import psutil
from phoenix.client import Client

from guidance_agent.phoenix import LocalPhoenix

__all__ = ["Annotations", "Reader", "Span", "until"]

WITHIN = 90.0
Span = dict[str, Any]
Annotations = list[dict[str, Any]]
Found = TypeVar("Found")

_SPAN = """query ($id: String!) { getSpanByOtelId(spanId: $id) {
  costSummary { total { cost } } tokenCountTotal tokenPromptDetails { cacheRead cacheWrite }
} }"""
_TRACE = """query ($id: String!) { getTraceByOtelId(traceId: $id) {
  projectId costSummary { total { cost tokens } } rootSpan { name } session { sessionId }
} }"""
_SESSION = """query ($id: String!) { getProjectSessionById(sessionId: $id) {
  numTraces firstInput { value } lastOutput { value } costSummary { total { cost } } tokenUsage { total }
} }"""


def until(look: Callable[[], Found], is_there: Callable[[Found], bool], what: str, within: float = WITHIN) -> Found:
    """Return what `look` finds, as soon as it is all there; Phoenix stores what it took a little later."""
    deadline = time.monotonic() + within
    while not is_there(found := look()):
        assert time.monotonic() < deadline, f"Phoenix has not shown {what} within {within:g} s, but: {found}"
        time.sleep(0.1)
    return found


class Reader:
    """Reads one project of a server."""

    def __init__(self, phoenix: LocalPhoenix, project: str) -> None:
        self._phoenix = phoenix
        self._project = project
        self._client = Client(base_url=phoenix.endpoint)

    def trace(self, trace_id: str, *names: str) -> list[Span]:
        """Return the spans of a trace in the order of their starts, once all of these names are among them."""

        def found() -> set[str]:
            return {span["name"] for span in self.spans(trace_id)}

        until(found, lambda there: set(names) <= there, f"{', '.join(names)} in trace {trace_id}")
        return sorted(self.spans(trace_id), key=lambda span: str(span["start_time"]))

    def spans(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace that are there now."""
        # Before its first span the project is not there, and to ask for its spans is an error.
        if self._project not in [project["name"] for project in self._client.projects.list()]:
            return []
        found: list[Any] = self._client.spans.get_spans(
            project_identifier=self._project, trace_ids=[trace_id], limit=1_000, timeout=30
        )
        return found

    def annotations(self, span_id: str) -> Annotations:
        """Return the annotations of a span, once there is one."""

        def look() -> Annotations:
            found: list[Any] = self._client.spans.get_span_annotations(
                project_identifier=self._project, span_ids=[span_id], timeout=30
            )
            return found

        return until(look, bool, f"an annotation of span {span_id}")

    def graph_span(self, span_id: str) -> dict[str, Any]:
        """Return what the page knows of a span beside its attributes: cost and tokens."""
        return self._graph(_SPAN, span_id, "getSpanByOtelId")

    def graph_trace(self, trace_id: str) -> dict[str, Any]:
        """Return what the page knows of a trace."""
        return self._graph(_TRACE, trace_id, "getTraceByOtelId")

    def session(self, session_id: str) -> dict[str, Any]:
        """Return what the page knows of a session."""
        return self._graph(_SESSION, session_id, "getProjectSessionById")

    def everything(self) -> str:
        """Return all that the server has stored, of every project, as SQL."""
        folder = Path(psutil.Process(self._phoenix.pid).environ()["PHOENIX_WORKING_DIR"])
        with closing(sqlite3.connect(f"file:{folder / 'phoenix.db'}?mode=ro", uri=True)) as database:
            return "\n".join(database.iterdump())

    def _graph(self, query: str, wanted: str, name: str) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": {"id": wanted}}).encode()
        request = urllib.request.Request(  # noqa: S310
            f"{self._phoenix.endpoint}/graphql", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            said = json.load(answer)
        assert not said.get("errors"), said["errors"]
        found: dict[str, Any] = said["data"][name]
        return found
