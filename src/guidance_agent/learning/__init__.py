"""What the service learns from answers that failed: reflection in four steps, and the rules that come of it."""

__all__: list[str] = []
