"""Batches as durable work: preparing, submitting, collecting and applying, one step of the state machine per module."""

__all__: list[str] = []
