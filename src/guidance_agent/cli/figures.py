"""Tokens, money and time as one line that a person reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from guidance_agent.advisor.events import Completed

__all__ = ["Totals", "answer_figures", "money"]


@dataclass(frozen=True, slots=True)
class Totals:
    """What several answers took. `cost_usd` holds the known costs; `unpriced` counts the answers without one."""

    answers: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    simulated: bool = False

    def with_answer(self, answer: Completed) -> Self:
        """Return the totals with one more answer."""
        usage, cost = answer.usage, answer.cost_usd
        return replace(
            self,
            answers=self.answers + 1,
            input_tokens=self.input_tokens + (0 if usage is None else usage.total_input_tokens),
            cached_tokens=self.cached_tokens + (0 if usage is None else usage.cache_read_tokens),
            output_tokens=self.output_tokens + (0 if usage is None else usage.output_tokens),
            cost_usd=self.cost_usd + (cost or 0.0),
            unpriced=self.unpriced + (cost is None),
            simulated=self.simulated or answer.simulated,
        )

    def line(self) -> str:
        """Return the totals as one line."""
        known = self.answers > self.unpriced
        cost = money(self.cost_usd if known else None, simulated=self.simulated)
        if known and self.unpriced:
            cost += f" (no price known for {self.unpriced} of them)"
        answers = "1 answer" if self.answers == 1 else f"{self.answers} answers"
        return f"{answers} · {_tokens(self.input_tokens, self.cached_tokens, self.output_tokens)} · {cost}"


def answer_figures(answer: Completed) -> str:
    """Return what one answer took as one line. The cost holds its private notes, the tokens are those of the answer."""
    usage = answer.usage
    parts = [] if usage is None else [_tokens(usage.total_input_tokens, usage.cache_read_tokens, usage.output_tokens)]
    if usage is not None and usage.estimated:
        parts.append("tokens estimated")
    parts.append(money(answer.cost_usd, simulated=answer.simulated))
    if answer.timing.first_text is not None:
        parts.append(f"first text after {answer.timing.first_text:.2f} s")
    parts.append(f"cache: {answer.cache_outcome.replace('_', ' ')}")
    return " · ".join(parts)


def money(usd: float | None, *, simulated: bool) -> str:
    """Return a cost in US dollars; a simulated one is what the model would have cost."""
    if usd is None:
        return "no price known"
    amount = f"${usd:.4f}" if usd >= 0.001 or usd == 0 else f"${usd:.6f}"
    return f"{amount} at list price, not charged" if simulated else amount


def _tokens(total_input: int, cached: int, output: int) -> str:
    return f"{total_input:,} tokens in ({cached:,} cached), {output:,} out"
