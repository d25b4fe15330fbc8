"""What the jobs that run twice a day are made of: their lock, their figures, their reports and the record of runs."""

__all__: list[str] = []
