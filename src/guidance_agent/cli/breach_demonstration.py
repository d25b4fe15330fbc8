"""`guidance-agent ask --simulate-breach`: what becomes of a breach, shown with an invented one.

The embedded simulator is told to say something that it must not say, in the middle of an ordinary answer. It does so
twice: behind the gate, which withholds it, and without the gate, as if it had been missed, so that the judge has to
find it. Records of the demonstration go into a folder of their own and are thrown away.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from guidance_agent.cli.answering import stream_answer
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.session import Session
from guidance_agent.cli.verdicts import show_verdict
from guidance_agent.errors import ConfigurationError
from guidance_agent.llm.endpoints import default_models
from guidance_agent.provider_simulator import Fault, Script

if TYPE_CHECKING:
    from guidance_agent import CustomerProfile, Runtime, Settings
    from guidance_agent.cli.margin import Margin
    from guidance_agent.cli.printers import Printer
    from guidance_agent.core.types import HistoryEntry
    from guidance_agent.settings import GateSettings

__all__ = ["demonstrate_breach", "refuse_real_models"]

DEMONSTRATION = (
    "Demonstration: the simulated model was told to break the rules in the middle of its answer. Nothing here is "
    "guidance."
)
BEHIND_THE_GATE = "1. Behind the gate: the breach never reaches the customer."
WITHOUT_THE_GATE = "2. Without the gate, as if it had missed the breach: the judge finds it after the answer."


def refuse_real_models(settings: Settings) -> None:
    """Raise `ConfigurationError` where a real model would be asked to break the rules."""
    if default_models(settings, os.environ).configured:
        raise ConfigurationError(
            "--simulate-breach works with the embedded simulator only, and a provider or model is configured here. "
            "Unset its key and GUIDANCE_MODEL for this one command, such as: "
            "env -u ANTHROPIC_API_KEY guidance-agent ask --simulate-breach"
        )


def demonstrate_breach(
    settings: Settings, customer: CustomerProfile, question: str, new_printer: Callable[[], Printer], margin: Margin
) -> ExitCode:
    """Show a breach withheld by the gate, and the same breach found by the judge."""
    refuse_real_models(settings)
    margin.notice(DEMONSTRATION)
    history: list[HistoryEntry] = [{"role": "customer", "content": question}]
    gate = settings.gate.model_copy(update={"mode": "on"})
    for title, of_gate in (
        (BEHIND_THE_GATE, gate),
        (WITHOUT_THE_GATE, gate.model_copy(update={"mode": "off"})),
    ):
        margin.notice(f"\n{title}")
        if not _shown(settings, of_gate, customer, history, new_printer(), margin):
            return ExitCode.INTERRUPTED
    return ExitCode.DONE


def _shown(
    settings: Settings,
    gate: GateSettings,
    customer: CustomerProfile,
    history: list[HistoryEntry],
    printer: Printer,
    margin: Margin,
) -> bool:
    with tempfile.TemporaryDirectory(prefix="guidance-demonstration-") as folder:
        apart = {"data_dir": Path(folder), "database_url": None, "gate": gate, "background": True}
        with Session(settings.model_copy(update=apart), prepare=_tell_to_break_the_rules) as session:
            answer = stream_answer(session, printer, customer, history, use_reasoning=False)
            if answer.error is not None:
                raise answer.error
            if answer.interrupted or answer.turn_id is None:
                return False
            for action in session.submit(session.gate_actions(answer.turn_id)).result():
                if action["withheld_text"]:
                    margin.notice(f"Withheld ({action['check']}): {str(action['withheld_text']).strip()}")
                    margin.notice(f"Shown instead: {str(action['replacement']).strip()}")
            show_verdict(session, printer, margin, answer, customer_id=customer.customer_id)
    return True


def _tell_to_break_the_rules(runtime: Runtime) -> None:
    if runtime.simulator is None:
        raise ConfigurationError("The demonstration needs the embedded simulator, and it is not running here.")
    text = (resources.files("guidance_agent.cli") / "demonstrations" / "breach.txt").read_text(encoding="utf-8").strip()
    model = runtime.model.partition("/")[2]
    # The first request to the author's model is the answer; a judge may be the same model and judges by itself.
    runtime.simulator.faults.add(Fault(kind="script", times=1, model=model, script=Script(text=text)))
