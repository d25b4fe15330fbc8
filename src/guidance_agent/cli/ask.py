"""`guidance-agent ask`: one question, one streamed answer."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from guidance_agent.cli import options
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.margin import Margin
from guidance_agent.cli.output import write_output

__all__ = ["EXAMPLES", "ask"]

EXAMPLES = (
    "guidance-agent ask",
    'guidance-agent ask "Can I take my pension at 55?"',
    "guidance-agent ask --persona moira --show-reasoning",
    "guidance-agent ask --customer customer.json --json | jq -rj 'select(.type == \"text_delta\").text'",
    "guidance-agent ask - < question.txt > answer.txt",
    "guidance-agent ask --simulate-breach",
)


def ask(
    question: Annotated[
        str | None,
        typer.Argument(
            metavar="[QUESTION]", help="What the customer asks; - reads standard input. Left out: the customer's own."
        ),
    ] = None,
    customer: options.CustomerFile = None,
    persona: options.Persona = None,
    list_personas: Annotated[
        bool, typer.Option("--list-personas", help="List the invented customers and their questions.")
    ] = False,
    model: options.Model = None,
    reasoning_model: options.ReasoningModel = None,
    no_reasoning: options.NoReasoning = False,
    simulate_breach: Annotated[
        bool,
        typer.Option(
            "--simulate-breach",
            help="Demonstration with the embedded simulator: an answer with an invented breach, withheld and judged.",
        ),
    ] = False,
    as_json: options.AsJson = False,
    all_events: options.AllEvents = False,
    show_reasoning: options.ShowReasoning = False,
    data_dir: options.DataDir = None,
    quiet: options.Quiet = False,
) -> ExitCode:
    """Stream the answer to one question."""
    from guidance_agent.cli.customers import choose_customer, choose_question, customer_name, persona_lines

    if list_personas:
        write_output("\n".join(persona_lines()) + "\n")
        return ExitCode.DONE
    who = choose_customer(customer, persona)
    words = choose_question(question, who)
    settings = options.load_settings(data_dir=data_dir, model=model, reasoning_model=reasoning_model)

    from guidance_agent.cli.answering import stream_answer
    from guidance_agent.cli.printers import make_printer
    from guidance_agent.cli.session import Session
    from guidance_agent.cli.verdicts import show_verdict

    margin = Margin(notes=not quiet and not as_json and sys.stdout.isatty())
    new_printer = partial(make_printer, margin, as_json=as_json, show_reasoning=show_reasoning, all_events=all_events)
    if simulate_breach:
        from guidance_agent.cli.breach_demonstration import demonstrate_breach

        return demonstrate_breach(settings, who, words, new_printer, margin)
    printer = new_printer()
    margin.note(f"{customer_name(who)}: {' '.join(words.split())}")
    margin.note()
    with Session(settings) as session:
        history = [{"role": "customer", "content": words}]
        answer = stream_answer(session, printer, who, history, use_reasoning=not no_reasoning)
        show_verdict(session, printer, margin, answer, customer_id=who.customer_id)
        if margin.notes and answer.turn_id is not None:
            page = session.submit(session.trace_page(answer.turn_id)).result()
            if page is not None:
                margin.note(f"Trace: {page}")
    if answer.error is not None:
        raise answer.error
    if answer.interrupted:
        margin.note("Stopped. What was shown is recorded.")
        return ExitCode.INTERRUPTED
    margin.note("Next: guidance-agent chat (a conversation), guidance-agent ask --list-personas (other customers)")
    return ExitCode.DONE
