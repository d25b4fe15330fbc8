"""Tools for streams: collect, write to a file, watch, cut anew, read without `await`.

They read a model's stream (`ModelStream`), the advisor's text (`provide_guidance_stream`) and a turn's events
(`consult`, `resume_turn`) alike, and leaving any of them early closes what it reads from.
"""

from guidance_agent.llm.streaming.callbacks import ObservedStream, with_callbacks
from guidance_agent.llm.streaming.collecting import collect
from guidance_agent.llm.streaming.files import WrittenFile, partial_text, to_file
from guidance_agent.llm.streaming.progress import Progress
from guidance_agent.llm.streaming.rechunking import TextPieces, rechunk
from guidance_agent.llm.streaming.sync import iterate_sync

__all__ = [
    "ObservedStream",
    "Progress",
    "TextPieces",
    "WrittenFile",
    "collect",
    "iterate_sync",
    "partial_text",
    "rechunk",
    "to_file",
    "with_callbacks",
]
