"""Write the fitted models to where the package reads them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fitting.network import Network

__all__ = ["write_models"]

FOLDER = Path(__file__).resolve().parent.parent / "src" / "guidance_agent" / "compliance" / "model"
SMALLEST_VECTOR = 0.06
"""Features whose vectors are shorter are left out."""


def write_models(
    linear: Mapping[str, Any], network: Network, names: Sequence[str], thresholds: Mapping[str, float]
) -> str:
    """Write the files and return a line about them; vectors are kept as whole numbers from -127 to 127."""
    kept = np.linalg.norm(network.vectors, axis=1) >= SMALLEST_VECTOR
    vectors = network.vectors[kept]
    steps = np.maximum(np.abs(vectors).max(axis=0), 1e-6) / 127
    whole = np.round(vectors / steps).astype(np.int8)
    content: dict[str, Any] = {
        "thresholds": dict(thresholds),
        "linear": dict(linear),
        "network": {
            "features": [name for name, is_kept in zip(names, kept.tolist(), strict=True) if is_kept],
            "steps": [float(f"{step:.6g}") for step in steps],
            "hidden_bias": [round(float(value), 5) for value in network.hidden_bias],
            "weights": [round(float(value), 5) for value in network.weights],
            "bias": round(float(network.bias), 5),
        },
    }
    fingerprint = hashlib.sha256(json.dumps(content, sort_keys=True).encode() + whole.tobytes())
    content["version"] = fingerprint.hexdigest()[:12]
    FOLDER.mkdir(exist_ok=True)
    packed = gzip.compress(json.dumps(content, sort_keys=True, separators=(",", ":")).encode(), 9, mtime=0)
    (FOLDER / "sentences.json.gz").write_bytes(packed)
    array = io.BytesIO()
    np.save(array, whole)
    (FOLDER / "vectors.npy.gz").write_bytes(gzip.compress(array.getvalue(), 9, mtime=0))
    (FOLDER / "version.txt").write_text(f"{content['version']}\n", encoding="ascii")
    sizes = " and ".join(f"{path.stat().st_size // 1024} KiB" for path in sorted(FOLDER.glob("*.gz")))
    return f"{len(whole)} features, {sizes}, version {content['version']}"
