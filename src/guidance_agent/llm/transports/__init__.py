"""Interchangeable ways to a provider: native HTTP for two wire formats, LiteLLM for the rest."""
