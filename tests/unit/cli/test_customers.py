"""From options to a customer and a question, or to an error that says what is wrong."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from guidance_agent import CustomerProfile
from guidance_agent.cli.customers import choose_customer, choose_question, customer_name, persona_lines
from guidance_agent.errors import InputError, NoQuestionError
from guidance_agent.testing import personas

NOBODY = CustomerProfile(customer_id="c-1")


def test_without_options_the_customer_is_a_persona_with_a_question() -> None:
    customer = choose_customer(None, None)
    assert customer.customer_id == "janet-56"
    assert choose_question(None, customer) == customer.presenting_question


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "customer.json"
    file.write_text(json.dumps({"customer_id": "c-9", "current_question": "When?"}))
    assert choose_question(None, choose_customer(file, None)) == "When?"


def test_a_file_and_a_persona_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--customer .* and --persona"):
        choose_customer(tmp_path / "customer.json", "janet")


def test_the_words_of_the_command_line_win() -> None:
    assert choose_question("Why?", choose_customer(None, "dev")) == "Why?"


@pytest.mark.parametrize("words", ["", "  \n", None])
def test_no_question_is_an_error_that_shows_how(words: str | None) -> None:
    with pytest.raises(NoQuestionError, match="guidance-agent ask"):
        choose_question(words, NOBODY)


def test_a_question_that_is_no_text_is_refused() -> None:
    with pytest.raises(InputError, match="not UTF-8 text, at character 3"):
        choose_question("abc\udcff", NOBODY)


class StandardInput:
    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StandardInput("Is £5 enough?\n".encode()))
    assert choose_question("-", NOBODY) == "Is £5 enough?\n"


def test_binary_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StandardInput(b"\xff\xfe"))
    with pytest.raises(InputError, match="Standard input is not UTF-8"):
        choose_question("-", NOBODY)


def test_the_list_names_every_persona_with_its_question() -> None:
    lines = persona_lines()
    assert [line.split()[0] for line in lines] == list(personas())
    assert all("?" in line for line in lines)


def test_a_customer_without_a_name_is_called_by_the_id() -> None:
    assert customer_name(NOBODY) == "c-1"
    assert customer_name(choose_customer(None, "janet")) == "Janet, 56"
