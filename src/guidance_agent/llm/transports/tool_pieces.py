"""Pieces of tool calls, joined to whole calls."""

from __future__ import annotations

from collections.abc import Iterable

from guidance_agent.llm.messages import ToolCall, ToolCallDelta

__all__ = ["ToolCallAssembler", "assemble_tool_calls"]


class ToolCallAssembler:
    """Joins the pieces of a streamed answer's tool calls.

    A piece with another id than the call at its index has begins that call anew: a provider that restarts its answer
    before any text restarts its tool calls too.
    """

    def __init__(self) -> None:
        self._calls: dict[int, tuple[str, str, list[str]]] = {}

    def add(self, piece: ToolCallDelta) -> None:
        call_id, name, arguments = self._calls.get(piece.index, ("", "", []))
        if piece.id and call_id and piece.id != call_id:
            call_id, name, arguments = "", "", []
        arguments.append(piece.arguments)
        self._calls[piece.index] = (piece.id or call_id, piece.name or name, arguments)

    def calls(self) -> tuple[ToolCall, ...]:
        """Return the calls in the order of their indexes; one without arguments has an empty object."""
        return tuple(
            ToolCall(call_id, name, "".join(arguments) or "{}")
            for _, (call_id, name, arguments) in sorted(self._calls.items())
        )


def assemble_tool_calls(pieces: Iterable[ToolCallDelta]) -> tuple[ToolCall, ...]:
    """Return the whole tool calls that `pieces` make."""
    assembler = ToolCallAssembler()
    for piece in pieces:
        assembler.add(piece)
    return assembler.calls()
