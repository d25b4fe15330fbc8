"""Programs that run in the Phoenix server's own environment: the standard library and what is installed there."""

__all__: list[str] = []
