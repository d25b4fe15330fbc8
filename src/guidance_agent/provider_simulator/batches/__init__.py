"""Files, OpenAI batches and Anthropic message batches, kept in a database so that a later process finds them."""

__all__: list[str] = []
