"""The conversation behind `guidance-agent chat`: its history is what was delivered, so it equals the records."""

from __future__ import annotations

from guidance_agent.cli.answering import Answer, stream_answer
from guidance_agent.cli.customers import check_text
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.figures import Totals
from guidance_agent.cli.margin import Margin, show_error
from guidance_agent.cli.output import write_output
from guidance_agent.cli.printers import Printer
from guidance_agent.cli.questions import Questions
from guidance_agent.cli.session import Session
from guidance_agent.cli.verdicts import show_verdict
from guidance_agent.core.types import CustomerProfile, HistoryEntry
from guidance_agent.errors import GuidanceAgentError, InputError, ModelError, NoQuestionError

__all__ = ["ChatLoop"]

_COMMANDS = {
    "/new": "begin another consultation",
    "/usage": "tokens and cost so far",
    "/help": "this list",
    "/quit": "leave",
}


class ChatLoop:
    """Asks, answers and remembers until there are no more questions.

    A question and its answer enter the history as far as the answer was delivered, so that the history stays equal to
    the records and the next turn continues the same consultation.
    """

    def __init__(
        self,
        session: Session,
        printer: Printer,
        margin: Margin,
        customer: CustomerProfile,
        questions: Questions,
        *,
        use_reasoning: bool,
    ) -> None:
        self._session = session
        self._printer = printer
        self._margin = margin
        self._customer = customer
        self._questions = questions
        self._use_reasoning = use_reasoning
        self._history: list[HistoryEntry] = []
        self._consultation_id: str | None = None
        self._totals = Totals()
        self._asked = 0

    def run(self, *, separate: bool) -> ExitCode:
        """Hold the conversation. `separate` puts an empty line between answers that nothing else stands between.

        Raises:
            InputError, ModelError: from the first question that cannot be answered, unless a person can ask again.
            ConfigurationError, StorageError: when no question can be answered.
        """
        self._greet()
        while (line := self._questions.read()) is not None:
            question = line.strip() or self._own_question()
            if not question:
                continue
            if question.startswith("/"):
                if not self._obey(question):
                    break
                continue
            if separate and self._asked:
                write_output("\n")
            self._asked += 1
            answer = self._ask(question)
            if answer is not None and (answer.terminated or (answer.interrupted and not self._questions.interactive)):
                return ExitCode.INTERRUPTED
        if not self._asked and not self._questions.interactive:
            raise NoQuestionError("Standard input holds no question. Write one question per line.")
        if self._asked:
            self._margin.note(f"In all: {self._totals.line()}")
        return ExitCode.DONE

    def _greet(self) -> None:
        if not self._questions.interactive:
            return
        own = self._customer.presenting_question
        if own:
            self._margin.note(f"Press Enter to ask: {' '.join(own.split())}")
        self._margin.note("/help lists the commands; Ctrl-C stops an answer.")
        self._margin.note()

    def _own_question(self) -> str:
        fresh = self._questions.interactive and not self._history
        return (self._customer.presenting_question or "").strip() if fresh else ""

    def _ask(self, question: str) -> Answer | None:
        try:
            answer = self._stream(check_text(question))
            if answer.error is not None:
                raise answer.error
        except (InputError, ModelError) as error:
            if not self._questions.interactive:
                raise
            show_error(str(error))
            return None
        if answer.interrupted:
            self._margin.note("Stopped. What was shown is kept.")
        show_verdict(self._session, self._printer, self._margin, answer, customer_id=self._customer.customer_id)
        self._margin.note()
        return answer

    def _stream(self, question: str) -> Answer:
        asked: HistoryEntry = {"role": "customer", "content": question}
        answer = stream_answer(
            self._session,
            self._printer,
            self._customer,
            [*self._history, asked],
            use_reasoning=self._use_reasoning,
            consultation_id=self._consultation_id,
        )
        self._consultation_id = answer.consultation_id
        if answer.text:
            self._history += [asked, {"role": "advisor", "content": answer.text}]
        if answer.completed is not None:
            self._totals = self._totals.with_answer(answer.completed)
        return answer

    def _obey(self, command: str) -> bool:
        """Do what a command says; False ends the conversation."""
        match command.lower():
            case "/quit" | "/exit":
                return False
            case "/new":
                self._history, self._consultation_id = [], None
                self._margin.note("A new consultation begins with the next question.")
            case "/usage":
                self._margin.say(self._totals.line() if self._totals.answers else "Nothing was answered yet.")
            case "/help":
                self._margin.say("\n".join(f"{name:<8}{meaning}" for name, meaning in _COMMANDS.items()))
            case _:
                self._refuse(command)
        return True

    def _refuse(self, command: str) -> None:
        error: GuidanceAgentError = InputError(f"There is no command {command!r}. Use one of {', '.join(_COMMANDS)}.")
        if not self._questions.interactive:
            raise error
        show_error(str(error))
