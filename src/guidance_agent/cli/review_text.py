"""Reviews as text for a person and as JSON values for a program."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from guidance_agent.cli.terminal_text import moment, on_one_line, plain, wrapped

if TYPE_CHECKING:
    from guidance_agent.core.reviews import Review, ReviewedText

__all__ = ["review_as_json", "review_as_text", "reviews_as_text"]


def review_as_json(review: Review) -> dict[str, object]:
    """Return a review as JSON values, times in ISO form and UTC."""
    return {name: _json(value) for name, value in dataclasses.asdict(review).items()}


def reviews_as_text(reviews: Sequence[Review]) -> str:
    """Return a list of reviews, two lines for each."""
    if not reviews:
        return "No review fits. Nothing waits for a person, or --status, --cause and the period leave it out.\n"
    return "\n".join(line for review in reviews for line in _listed(review)) + "\n"


def review_as_text(review: Review, about: ReviewedText) -> str:
    """Return one review with the question, the answer, and what the judge said, check by check."""
    return "\n".join(_shown(review, about)) + "\n"


def _listed(review: Review) -> Iterator[str]:
    mark = "  simulated" if review.simulated else ""
    yield f"{review.id}  {moment(review.opened_at)}  {review.cause:10}  {_standing(review)}{mark}"
    yield f"    {on_one_line(review.detail or '-', 100)} | {on_one_line(review.question, 60)}"


def _standing(review: Review) -> str:
    if review.status == "decided":
        return f"{review.decision} by {on_one_line(review.decided_by or '-')}"
    return f"claimed by {on_one_line(review.claimed_by or '-')}" if review.status == "claimed" else "open"


def _shown(review: Review, about: ReviewedText) -> Iterator[str]:
    yield f"{review.id}: {review.cause}, {_standing(review)}" + (", simulated" if review.simulated else "")
    yield f"Turn {plain(review.turn_id)}, opened {moment(review.opened_at)}; the answer stands as {review.judgement}."
    if review.reason:
        yield wrapped(f"Reason: {review.reason}")
    yield "\nQuestion"
    yield wrapped(review.question)
    yield "\nAnswer, as it was delivered" if about.was_shown else "\nAnswer, which was not shown"
    yield "  Not on record." if about.text is None else wrapped(about.text)
    yield "\nVerdict of the judge"
    verdict = about.verdict
    if verdict is None:
        yield wrapped(review.detail or "None.")
        return
    if verdict.get("unreadable"):
        yield wrapped(f"Not readable: {verdict['unreadable']}")
    for result in verdict["checks"]:
        yield f"  {result['check'].replace('_', ' ')}: {result['status'].replace('_', ' ')} ({result['source']})"
        if result["status"] == "fail":
            if result["quote"] is not None:
                yield wrapped(f"at {result['start']} to {result['end']}: “{result['quote']}”", "    ")
            yield wrapped(result["explanation"], "    ")
    yield f"\nEverything behind the answer: guidance-agent audit show {plain(review.turn_id)}"


def _json(value: object) -> object:
    return value.astimezone(UTC).isoformat(timespec="microseconds") if isinstance(value, datetime) else value
