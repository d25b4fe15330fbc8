"""UK pension guidance, streamed from language models."""
