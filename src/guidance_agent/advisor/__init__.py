"""The advisor: one turn from question to delivered text."""
