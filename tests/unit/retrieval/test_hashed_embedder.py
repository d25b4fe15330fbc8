"""The offline embedder: no network, no model, equal everywhere."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

import guidance_agent.retrieval
from guidance_agent.errors import ConfigurationError, InputError
from guidance_agent.retrieval.embeddings import embed, embed_batch
from guidance_agent.retrieval.hashed import HASHED_MODEL, HashedEmbedder


async def test_every_row_has_length_one_and_a_text_without_meaning_has_length_zero() -> None:
    vectors = await HashedEmbedder().embed(["Can I transfer my final salary pension?", "Tax on a lump sum", "?!", ""])
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, 1024)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 0, 0], abs=1e-6)


async def test_a_text_has_one_vector_whatever_it_is_embedded_with() -> None:
    embedder = HashedEmbedder()
    texts = [f"Question {number} about tax and drawdown" for number in range(600)]
    together = await embedder.embed(texts)
    assert np.array_equal(together[577], (await embedder.embed([texts[577]]))[0])


async def test_no_texts_give_no_rows() -> None:
    assert (await HashedEmbedder(256).embed([])).shape == (0, 256)


async def test_the_same_matter_in_other_words_is_closer_than_another_matter() -> None:
    question, same, other = await HashedEmbedder().embed(
        ["My husband passed away, what about his pension?", "What happens on death", "The annual allowance is £60,000"]
    )
    assert question @ same > question @ other + 0.1


def test_the_name_of_the_model_changes_with_what_makes_its_vectors() -> None:
    """Stored vectors are compared by the model's name: change `HASHED_MODEL` together with these two prints."""
    word_list = Path(guidance_agent.retrieval.__file__).with_name("lexicon.yaml").read_bytes()
    vector = HashedEmbedder().vectors(["I'm 58 with a CETV of £412,000. Should I be worried about tax-free cash?"])
    prints = {
        "name": HASHED_MODEL,
        "words": hashlib.sha256(word_list).hexdigest()[:12],
        "vector": hashlib.sha256(np.rint(vector * 1_000).astype("<i4").tobytes()).hexdigest()[:12],
    }
    assert prints == {"name": "offline/hashed-terms-1", "words": "d09b7afc3de4", "vector": "dbdb0e996fff"}


async def test_embed_and_embed_batch_work_without_a_key() -> None:
    one = await embed("tax-free cash", dimensions=128)
    many = await embed_batch(["tax-free cash", "annuity"], dimensions=128)
    assert one.shape == (128,)
    assert np.array_equal(one, many[0])


async def test_a_providers_model_without_a_gateway_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"'openai/text-embedding-3-small'.*source"):
        await embed_batch(["a"], model="openai/text-embedding-3-small")


async def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="batch_size is 0"):
        await embed_batch(["a"], batch_size=0)
