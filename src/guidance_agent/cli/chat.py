"""`guidance-agent chat`: a conversation, turn by turn."""

from __future__ import annotations

import sys

from guidance_agent.cli import options
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.margin import Margin

__all__ = ["EXAMPLES", "chat"]

EXAMPLES = (
    "guidance-agent chat",
    "guidance-agent chat --persona sunita --model openai/gpt-6-luna",
    "printf 'Can I take it all?\\nWhat about tax?\\n' | guidance-agent chat --json",
)


def chat(
    customer: options.CustomerFile = None,
    persona: options.Persona = None,
    model: options.Model = None,
    reasoning_model: options.ReasoningModel = None,
    no_reasoning: options.NoReasoning = False,
    as_json: options.AsJson = False,
    all_events: options.AllEvents = False,
    show_reasoning: options.ShowReasoning = False,
    data_dir: options.DataDir = None,
    quiet: options.Quiet = False,
) -> ExitCode:
    """Hold a conversation. Piped input is read as one question per line.

    At the prompt: /new begins another consultation, /usage shows what was used, /help lists these, /quit leaves.
    Ctrl-C stops an answer that streams; at the prompt it leaves.
    """
    from guidance_agent.cli.customers import choose_customer, customer_name

    who = choose_customer(customer, persona)
    settings = options.load_settings(data_dir=data_dir, model=model, reasoning_model=reasoning_model)

    from guidance_agent.cli.conversation import ChatLoop
    from guidance_agent.cli.printers import make_printer
    from guidance_agent.cli.questions import open_questions
    from guidance_agent.cli.session import Session

    margin = Margin(notes=not quiet and not as_json and sys.stdout.isatty())
    printer = make_printer(margin, as_json=as_json, show_reasoning=show_reasoning, all_events=all_events)
    with Session(settings) as session:
        questions = open_questions(f"{who.first_name or customer_name(who)}> ")
        loop = ChatLoop(session, printer, margin, who, questions, use_reasoning=not no_reasoning)
        return loop.run(separate=not as_json)
