"""`guidance-agent review`: what a person must look at, and what the person decides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from guidance_agent.cli import options, period
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.output import json_line, write_output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guidance_agent.compliance.reviewing import Decided, ReviewDesk
    from guidance_agent.compliance.verdict import CheckName
    from guidance_agent.core.reviews import Review, ReviewedText, ReviewRecords, ReviewStatus
    from guidance_agent.settings import Settings

__all__ = ["EXAMPLES", "claim", "decide", "list_reviews", "review", "show"]

EXAMPLES = (
    "guidance-agent review list --cause fail --since 7d",
    "guidance-agent review show review_019a8b2c3d4e5f60718293a4b5",
    "guidance-agent review claim review_019a8b2c3d4e5f60718293a4b5 --reviewer 'A. Patel'",
    "guidance-agent review decide review_019a8b2c3d4e5f60718293a4b5 uphold --reviewer 'A. Patel' --reason 'It steers.'",
)


class Status(StrEnum):
    """Which reviews are listed: `waiting` are those that are open or claimed."""

    WAITING = "waiting"
    OPEN = "open"
    CLAIMED = "claimed"
    DECIDED = "decided"
    ALL = "all"


class Cause(StrEnum):
    """Why a person must look."""

    FAIL = "fail"
    UNREADABLE = "unreadable"
    UNJUDGED = "unjudged"
    AUDIT = "audit"


class Ruling(StrEnum):
    """What a person can decide."""

    APPROVE = "approve"
    UPHOLD = "uphold"


class Check(StrEnum):
    """The checks of a verdict."""

    ADVICE_BOUNDARY = "advice_boundary"
    RISK_DISCLOSURE = "risk_disclosure"
    CLEAR_NOT_MISLEADING = "clear_not_misleading"
    UNDERSTANDING_CHECK = "understanding_check"
    SIGNPOSTING = "signposting"
    DB_TRANSFER = "db_transfer"
    SCAM = "scam"
    VULNERABILITY = "vulnerability"
    FIGURES = "figures"


_STATUSES: dict[Status, tuple[ReviewStatus, ...]] = {
    Status.WAITING: ("open", "claimed"),
    Status.OPEN: ("open",),
    Status.CLAIMED: ("claimed",),
    Status.DECIDED: ("decided",),
    Status.ALL: (),
}

Reference = Annotated[str, typer.Argument(metavar="REVIEW", help="Id of the review, or of its turn.")]
Reviewer = Annotated[str, typer.Option("--reviewer", "-r", metavar="NAME", help="Who you are; kept in the records.")]
TakeOver = Annotated[bool, typer.Option("--take-over", help="Although somebody else has claimed it.")]


def review(context: typer.Context) -> None:
    """Look at answers that failed, or could not be judged, and decide."""
    if context.invoked_subcommand is None:
        write_output(context.get_help() + "\n")


def list_reviews(
    status: Annotated[Status, typer.Option("--status", help="Which reviews; waiting is open or claimed.")] = (
        Status.WAITING
    ),
    cause: Annotated[list[Cause] | None, typer.Option("--cause", help="Only these causes; may be repeated.")] = None,
    reviewer: Annotated[
        str | None, typer.Option("--reviewer", "-r", metavar="NAME", help="Only what this person claimed or decided.")
    ] = None,
    since: period.Since = None,
    until: period.Until = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=options.MOST, help="At most so many.")] = 100,
    as_json: options.ResultAsJson = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """List what waits for a person, the oldest first; --since and --until count from when it was opened."""
    from guidance_agent.core.clock import SystemClock

    now = SystemClock().now()
    bounds = (period.first_moment(since, now), period.moment_after(until, now))

    async def find(desk: _Desk | None) -> Sequence[Review]:
        if desk is None:
            return ()
        return await desk.reviews.queue(
            statuses=_STATUSES[status],
            causes=tuple(each.value for each in cause or ()),
            person=reviewer,
            since=bounds[0],
            until=bounds[1],
            limit=limit,
        )

    async def work() -> Sequence[Review]:
        async with _desk(options.load_settings(data_dir=data_dir)) as desk:
            return await find(desk)

    found = asyncio.run(work())
    from guidance_agent.cli.review_text import review_as_json, reviews_as_text

    if as_json:
        write_output(json_line({"reviews": [review_as_json(each) for each in found]}))
    else:
        write_output(reviews_as_text(found))
    return ExitCode.DONE


def show(reference: Reference, as_json: options.ResultAsJson = False, data_dir: options.DataDir = None) -> ExitCode:
    """Show one review: question, answer, and the verdict check by check."""

    async def work() -> tuple[Review, ReviewedText]:
        async with _desk_with_records(options.load_settings(data_dir=data_dir), reference) as desk:
            found = await desk.reviews.find(reference)
            return found, await desk.reviews.text_of(found)

    found, about = asyncio.run(work())
    from guidance_agent.cli.review_text import review_as_json, review_as_text

    if as_json:
        told = {"answer": about.text, "was_shown": about.was_shown, "verdict": about.verdict}
        write_output(json_line({**review_as_json(found), **told}))
    else:
        write_output(review_as_text(found, about))
    return ExitCode.DONE


def claim(
    reference: Reference,
    reviewer: Reviewer,
    release: Annotated[bool, typer.Option("--release", help="Give it back instead.")] = False,
    take_over: TakeOver = False,
    as_json: options.ResultAsJson = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Note that you look at a review, so that nobody else does."""

    async def work() -> Review:
        async with _desk_with_records(options.load_settings(data_dir=data_dir), reference) as desk:
            return await desk.desk.claim(reference, reviewer=reviewer, take_over=take_over, release=release)

    found = asyncio.run(work())
    from guidance_agent.cli.review_text import review_as_json

    told = f"{found.id} is open again." if release else f"{found.id} is claimed by {found.claimed_by}."
    write_output(json_line(review_as_json(found)) if as_json else told + "\n")
    return ExitCode.DONE


def decide(
    reference: Reference,
    decision: Annotated[Ruling, typer.Argument(help="approve: the answer was right. uphold: it was not.")],
    reviewer: Reviewer,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept, and told to no customer.")],
    check: Annotated[
        list[Check] | None,
        typer.Option("--check", help="With uphold: a check that failed in your view; may be repeated."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Although it is decided; every decision is kept.")] = False,
    take_over: TakeOver = False,
    as_json: options.ResultAsJson = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Decide a review. What you decide stands instead of the judge's verdict, which is kept beside it."""
    failed: list[CheckName] = [each.value for each in check or ()]

    async def work() -> Decided:
        async with _desk_with_records(options.load_settings(data_dir=data_dir), reference) as desk:
            return await desk.desk.decide(
                reference,
                decision.value,
                reason=reason,
                reviewer=reviewer,
                failed=failed,
                again=again,
                take_over=take_over,
            )

    decided = asyncio.run(work())
    from guidance_agent.cli.review_text import review_as_json

    found = decided.review
    if as_json:
        write_output(json_line({**review_as_json(found), "decided_verdict_id": decided.verdict_id}))
    else:
        write_output(f"{found.id}: {found.decision}. The answer now stands as {found.judgement}.\n")
    return ExitCode.DONE


class _Desk(NamedTuple):
    desk: ReviewDesk
    reviews: ReviewRecords


@contextlib.asynccontextmanager
async def _desk(settings: Settings) -> AsyncIterator[_Desk | None]:
    from guidance_agent.cli.records import records_to_read
    from guidance_agent.compliance.reviewing import ReviewDesk
    from guidance_agent.core.clock import SystemClock
    from guidance_agent.core.reviews import ReviewRecords

    async with records_to_read(settings) as records:
        if records is None:
            yield None
            return
        clock = SystemClock()
        reviews = ReviewRecords(records, clock)
        yield _Desk(ReviewDesk(reviews), reviews)


@contextlib.asynccontextmanager
async def _desk_with_records(settings: Settings, reference: str) -> AsyncIterator[_Desk]:
    from guidance_agent.cli.records import place_of_records
    from guidance_agent.errors import UnknownReviewError

    async with _desk(settings) as desk:
        if desk is None:
            raise UnknownReviewError(
                f"There is no review {reference!r}: nothing is on record in {place_of_records(settings)} yet. Name the "
                "folder of the records with --data-dir."
            )
        yield desk
