"""Who asks, and what: from the options of a command to a customer and a question."""

from __future__ import annotations

import sys
from pathlib import Path

from guidance_agent.core.types import CustomerProfile
from guidance_agent.errors import InputError, NoQuestionError

__all__ = ["check_text", "choose_customer", "choose_question", "customer_name", "persona_lines"]

DEFAULT_PERSONA = "janet"


def choose_customer(file: Path | None, persona: str | None) -> CustomerProfile:
    """Return the customer of the file, else of the persona, else the first persona.

    Raises:
        InputError: when both are given, the persona is not known, or the file cannot be used.
    """
    if file is not None and persona is not None:
        raise InputError(f"Both --customer {str(file)!r} and --persona {persona!r} are given. Leave one of them out.")
    if file is not None:
        return CustomerProfile.from_file(file)
    from guidance_agent.testing import load_persona

    return load_persona(persona or DEFAULT_PERSONA).profile


def choose_question(words: str | None, customer: CustomerProfile) -> str:
    """Return the question: the words of the command line, standard input for `-`, or the customer's own.

    Raises:
        NoQuestionError: when there is none.
        InputError: when it is not text.
    """
    if words is None:
        question = customer.presenting_question or ""
        if not question.strip():
            raise NoQuestionError(
                f"The customer {customer.customer_id!r} has no presenting_question. Give the question: "
                'guidance-agent ask "When can I take my pension?"'
            )
        return question
    question = _read_standard_input() if words == "-" else words
    if not question.strip():
        source = "standard input" if words == "-" else f"the question {words!r}"
        raise NoQuestionError(
            f'There is nothing to answer: {source} is empty. Write it between quotation marks: guidance-agent ask "…"'
        )
    return check_text(question)


def check_text(question: str) -> str:
    """Return `question`; raise `InputError` when it holds bytes that were no text."""
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"The question holds bytes that are not UTF-8 text, at character {error.start}. Type it again, or pass it "
            "in a UTF-8 file: guidance-agent ask - < question.txt"
        ) from error
    return question


def customer_name(customer: CustomerProfile) -> str:
    """Return how a heading calls the customer."""
    name = customer.first_name or customer.customer_id
    return name if customer.age is None else f"{name}, {customer.age}"


def persona_lines() -> list[str]:
    """Return one line per persona: its name, and the question that it brings."""
    from guidance_agent.testing import load_persona, personas

    width = max(map(len, personas()))
    return [f"{name:<{width}}  {load_persona(name).profile.presenting_question}" for name in personas()]


def _read_standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"Standard input is not UTF-8 text: {error}. Pass plain text.") from error
