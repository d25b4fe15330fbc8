"""Failures on request: what goes wrong, for which requests, how often."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from guidance_agent.provider_simulator.answer import Answer
from guidance_agent.provider_simulator.draws import draw
from guidance_agent.provider_simulator.frames import Frame
from guidance_agent.provider_simulator.models import Wire
from guidance_agent.provider_simulator.scripts import Script
from guidance_agent.provider_simulator.wire_errors import ProviderError, standard_error

__all__ = [
    "BATCH_FAULTS",
    "CALL_FAULTS",
    "ITEM_FAULTS",
    "ROUTE_FAULTS",
    "Fault",
    "FaultKind",
    "FaultQueue",
    "altered_answer",
    "break_frames",
    "fault_error",
    "seeded",
]

FaultKind = Literal[
    "status",
    "drop",
    "truncate",
    "stall",
    "slow_headers",
    "error_event",
    "garbage",
    "refusal",
    "max_tokens",
    "duplicate_start",
    "splice",
    "accept_then_drop",
    "redirect",
    "wrong_content_type",
    "script",
    "answer_lost",
    "gone",
    "stale_list",
    "unknown_row",
    "repeat_row",
    "fail_batch",
    "slow_batch",
    "expire",
    "lose",
]

BATCH_FAULTS: frozenset[FaultKind] = frozenset({"fail_batch", "slow_batch"})
"""Decided once for a whole batch, when it is submitted."""

ITEM_FAULTS: frozenset[FaultKind] = frozenset(
    {"status", "error_event", "refusal", "max_tokens", "script", "expire", "lose"}
)
"""Meet the requests inside a batch, each when its turn comes."""

_OF_BATCH_ROUTES: frozenset[FaultKind] = frozenset({"answer_lost", "gone", "stale_list", "unknown_row", "repeat_row"})
CALL_FAULTS: frozenset[FaultKind] = (
    frozenset(get_args(FaultKind)) - BATCH_FAULTS - _OF_BATCH_ROUTES - {"expire", "lose"}
)
"""Meet the interactive calls."""

ROUTE_FAULTS: frozenset[FaultKind] = (CALL_FAULTS - {"script", "refusal", "max_tokens"}) | _OF_BATCH_ROUTES
"""Meet the requests about files and batches."""

_ONLY_WHEN_NAMED: frozenset[FaultKind] = frozenset({"status", "error_event"})


class Fault(BaseModel):
    """One failure, and the requests that it meets.

    Attributes:
        kind: `status` answers with an error status; `drop` resets the connection; `truncate` ends the body cleanly but
            too early; `stall` stops sending; `slow_headers` waits before the answer begins; `error_event` fails inside
            the stream; `garbage` sends data that is not JSON; `refusal` and `max_tokens` end the answer that way;
            `duplicate_start` sends the opening event twice; `splice` puts the opening of another stream in the middle;
            `accept_then_drop` reads the request and closes without an answer; `redirect` answers 307;
            `wrong_content_type` answers 200 with a web page; `script` dictates the answer (no failure).
            About files and batches: `answer_lost` does what was asked and closes without an answer; `gone` deletes the
            file or batch that the request names; `stale_list` leaves out what is younger than `seconds` (None: all);
            `truncate`, `drop`, `stall` and `garbage` break a download after `after_chunks` rows, `unknown_row` and
            `repeat_row` add a row that nobody asked for or send one twice. About a whole batch, met when it is
            submitted: `fail_batch` (it fails validation; on Anthropic every item errors), `slow_batch` (it takes
            `seconds` until its last item; None: longer than its window). About items: `expire` (not reached within the
            window), `lose` (no row in the results); also `refusal`, `max_tokens`, `script`, and, where `operation`
            names the item, `status` and `error_event`.
        times: How many matching requests it meets; None means all of them.
        skip: Matching requests that pass before the first is met.
        model, path, operation, contains: Substrings that the model name, the path, the operation (such as
            `anthropic.messages.stream`, `openai.embeddings`, `openai.files.create`, `anthropic.batches.results` or
            `openai.batches.item`) and the request body must contain; empty matches all.
        share: Share of the matching requests that it meets, from 0 to 1; which ones follows from the seed and, inside a
            batch, from the custom id.
        after_chunks: Text chunks that are sent before a stream breaks.
        status: Status for `status`, and for the error of `error_event` (429, 500, 529 …).
        retry_after: Value of the `retry-after` header in seconds; None sends none.
        insufficient_quota: With 429 on OpenAI: the quota is used up for good.
        message: Error text instead of the provider's.
        pause: Seconds between the last text chunk and what breaks the stream there. A client that reads meanwhile has
            seen the text; without a pause the reset of a `drop` may overtake it.
        seconds: How long `stall` and `slow_headers` last; None means until the client leaves.
        abrupt: `drop` and `accept_then_drop` with a TCP reset; False closes the connection in the ordinary way, the
            body unfinished.
        location: Target of `redirect`.
        script: The answer for `script`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: FaultKind
    times: int | None = Field(default=1, ge=1)
    skip: int = Field(default=0, ge=0)
    model: str = ""
    path: str = ""
    operation: str = ""
    contains: str = ""
    share: float = Field(default=1.0, ge=0, le=1)
    after_chunks: int = Field(default=0, ge=0)
    status: int = Field(default=529, ge=400, le=599)
    retry_after: float | None = None
    insufficient_quota: bool = False
    message: str | None = None
    pause: float = Field(default=0.0, ge=0)
    seconds: float | None = Field(default=None, ge=0)
    abrupt: bool = True
    location: str = "/"
    script: Script | None = None

    def meets(self, *, model: str, path: str, operation: str, body: str) -> bool:
        return (
            self.model in model
            and self.path in path
            and self.operation in operation
            and (not self.contains or self.contains in body)
        )


class _Pending:
    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.skip = fault.skip
        self.left = fault.times


class FaultQueue:
    """Faults that wait for their requests; the first that matches is taken."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._draws = 0
        self._pending: list[_Pending] = []
        # Guards the faults and what is left of them: the items of batches are met in a thread of their own.
        self._lock = threading.Lock()

    def add(self, *faults: Fault) -> None:
        with self._lock:
            self._pending.extend(_Pending(fault) for fault in faults)

    def script(self, text: str | None = None, *, pieces: Sequence[str] | None = None, times: int | None = 1) -> None:
        """Make the model say exactly `text`, or exactly these text chunks, to the next requests."""
        script = Script(text=text, pieces=None if pieces is None else tuple(pieces))
        self.add(Fault(kind="script", times=times, script=script))

    def clear(self) -> None:
        with self._lock:
            self._pending.clear()

    def __iter__(self) -> Iterator[Fault]:
        return iter([pending.fault for pending in self._pending])

    def __len__(self) -> int:
        return len(self._pending)

    def take(
        self,
        *,
        model: str,
        path: str,
        operation: str,
        body: str,
        among: frozenset[FaultKind] = CALL_FAULTS,
        key: str | None = None,
    ) -> Fault | None:
        """The fault of the kinds `among` that this request meets, if any; it is used up accordingly.

        `key` decides with the seed whether the request belongs to a fault's share; None draws anew.
        """
        if not self._pending:
            return None
        with self._lock:
            for pending in self._pending:
                fault = pending.fault
                if fault.kind not in among or not fault.meets(model=model, path=path, operation=operation, body=body):
                    continue
                if operation.endswith(".item") and fault.kind in _ONLY_WHEN_NAMED and "item" not in fault.operation:
                    continue
                if fault.share < 1 and self._draw(fault, key) >= fault.share:
                    continue
                if pending.skip:
                    pending.skip -= 1
                    continue
                if pending.left is not None:
                    pending.left -= 1
                    if pending.left == 0:
                        self._pending.remove(pending)
                return fault
        return None

    def _draw(self, fault: Fault, key: str | None) -> float:
        if key is None:
            self._draws += 1
            key = str(self._draws)
        return draw(self._seed, "share", fault.kind, fault.status, key)


def fault_error(fault: Fault, wire: Wire) -> ProviderError:
    """The error that a fault of kind `status` or `error_event` stands for, worded as the provider does."""
    error = standard_error(wire, fault.status, insufficient_quota=fault.insufficient_quota)
    if fault.message is not None:
        error.message = fault.message
    if fault.retry_after is not None:
        error.headers["retry-after"] = f"{fault.retry_after:g}"
    return error


def altered_answer(fault: Fault, answer: Answer) -> Answer:
    """The answer as `refusal` and `max_tokens` leave it."""
    if fault.kind not in ("refusal", "max_tokens"):
        return answer
    kept = answer.pieces[: fault.after_chunks]
    share = len(kept) / max(1, len(answer.pieces))
    return Answer(
        pieces=kept,
        text_tokens=round(answer.text_tokens * share),
        reasoning=answer.reasoning,
        stop="refusal" if fault.kind == "refusal" else "length",
    )


def break_frames(fault: Fault, frames: list[Frame], error_data: bytes, other_start: bytes) -> list[Frame]:
    """The frames with the fault inserted after `after_chunks` text chunks, or at the end of a shorter text."""
    position = _position(frames, fault.after_chunks)
    before, after = frames[:position], frames[position:]
    due = before[-1].due if before else after[0].due if after else 0.0
    match fault.kind:
        case "drop":
            return [*before, Frame("reset" if fault.abrupt else "close", b"", due, fault.pause)]
        case "truncate":
            return [*before, Frame("end", b"", due, fault.pause)]
        case "stall":
            if fault.seconds is None:
                return [*before, Frame("stall", b"", float("inf"))]
            pause = fault.seconds
            return [*before, *(replace(frame, due=max(frame.due, due) + pause) for frame in after)]
        case "error_event":
            return [*before, Frame("tail", error_data, due, fault.pause)]
        case "garbage":
            return [*before, Frame("tail", b"data: <html>502 Bad Gateway</html>\n\n", due, fault.pause), *after]
        case "duplicate_start":
            return [frames[0], *frames]
        case "splice":
            return [*before, Frame("tail", other_start, due, fault.pause), *after]
        case _:
            return frames


def _position(frames: Sequence[Frame], text_chunks: int) -> int:
    if text_chunks == 0:
        first = next((i for i, frame in enumerate(frames) if frame.kind == "text"), None)
        return first if first is not None else _before_tail(frames)
    seen = 0
    for index, frame in enumerate(frames):
        if frame.kind == "text":
            seen += 1
            if seen == text_chunks:
                return index + 1
    return _before_tail(frames)


def _before_tail(frames: Sequence[Frame]) -> int:
    return next((i for i, frame in enumerate(frames) if frame.kind == "tail"), len(frames))


def seeded(seed: int, *parts: object) -> random.Random:
    """A generator of its own for one purpose, so that one draw never shifts another."""
    return random.Random(":".join(map(str, (seed, *parts))))
