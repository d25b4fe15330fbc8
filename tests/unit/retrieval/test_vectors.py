"""Exact search: right by definition, never across models, stable under change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.errors import InputError
from guidance_agent.retrieval import vectors as vectors_module
from guidance_agent.retrieval.vectors import (
    FloatArray,
    QueryVector,
    VectorIndex,
    embedding_columns,
    vector_from_bytes,
    vector_to_bytes,
)


def unit(seed: int, rows: int, dimensions: int = 8) -> FloatArray:
    matrix = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    normalised: FloatArray = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return normalised


def index_of(matrix: FloatArray, model: str = "m") -> VectorIndex:
    index = VectorIndex(model, matrix.shape[1])
    index.append([str(number) for number in range(len(matrix))], matrix)
    return index


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(0, 45))
def test_the_best_rows_are_found_in_order(seed: int, rows: int, limit: int) -> None:
    matrix = unit(seed, rows)
    query = unit(seed + 1, 1)[0]
    hits = index_of(matrix).search(QueryVector("m", query), limit)
    expected = sorted(range(rows), key=lambda row: -float((matrix @ query)[row]))[:limit]
    assert [hit.id for hit in hits] == [str(row) for row in expected]


def test_equal_scores_are_cut_in_the_order_of_the_rows() -> None:
    matrix = np.tile(unit(3, 1), (9, 1))
    hits = index_of(matrix).search(QueryVector("m", matrix[0]), 4)
    assert [hit.id for hit in hits] == ["0", "1", "2", "3"]


def test_a_mask_hides_rows_and_weights_scale_scores() -> None:
    matrix = np.eye(4, dtype=np.float32)
    query = QueryVector("m", np.full(4, 0.5, dtype=np.float32))
    index = index_of(matrix)
    mask = np.array([False, True, True, False])
    assert [hit.id for hit in index.search(query, 4, mask=mask)] == ["1", "2"]
    weights = np.array([0.1, 0.4, 0.9, 0.2], dtype=np.float32)
    (best,) = index.search(query, 1, weights=weights)
    assert best.id == "2"
    assert best.score == pytest.approx(0.45)


def test_rows_can_be_dropped_and_added_again() -> None:
    matrix = unit(5, 100)
    index = index_of(matrix)
    assert index.drop(["7", "8", "unknown"]) == 2
    assert len(index) == 98
    assert "7" not in index
    index.append(["7"], matrix[7:8])
    assert index.search(QueryVector("m", matrix[7]), 1)[0].id == "7"
    assert index.search(QueryVector("m", matrix[99]), 1)[0].id == "99"


@pytest.mark.parametrize(("model", "length"), [("other", 8), ("m", 4)])
def test_vectors_of_another_model_or_length_are_never_compared(model: str, length: int) -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        index_of(unit(1, 3)).search(QueryVector(model, np.ones(length, dtype=np.float32)), 1)


def test_rows_of_another_length_and_ids_twice_are_refused() -> None:
    index = index_of(unit(1, 3))
    with pytest.raises(InputError, match="shape"):
        index.append(["9"], unit(1, 1, 4))
    with pytest.raises(InputError, match="already has '1'"):
        index.append(["1"], unit(1, 1))
    with pytest.raises(InputError, match="already has '9'"):
        index.append(["9", "9"], unit(1, 2))
    assert len(index) == 3


async def test_a_large_index_is_searched_in_a_thread_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of(unit(2, 500))
    query = QueryVector("m", unit(4, 1)[0])
    monkeypatch.setattr(vectors_module, "THREAD_ROWS", 100)
    assert await index.find(query, 10) == index.search(query, 10)


def test_a_stored_vector_is_float32_little_endian_and_comes_back_equal() -> None:
    vector = np.array([1.0, -0.5], dtype=np.float32)
    stored = vector_to_bytes(vector)
    assert stored == bytes.fromhex("0000803f000000bf")
    assert np.array_equal(vector_from_bytes(stored), vector)
    columns = embedding_columns(QueryVector("m", vector))
    assert columns == {"embedding": stored, "embedding_model": "m", "embedding_dimensions": 2}


@pytest.mark.parametrize("data", [b"", b"abc"])
def test_bytes_that_are_no_vector_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="not float32"):
        vector_from_bytes(data)
