"""The user's own prices: a JSON or TOML file of US dollars per million tokens, by model name.

    ["anthropic/claude-sonnet-5-5"]
    input = 1.8
    output = 9.0
    cache_read = 0.09
    cache_write_5m = 2.25
    cache_write_1h = 3.6
    batch_factor = 0.5

`input` and `output` are required. A cache column that is left out costs what input costs. Without `batch_factor` a
batch of the model has no price.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from guidance_agent.errors import ConfigurationError
from guidance_agent.llm.messages import UnitPrices

__all__ = ["FilePrices", "read_price_file"]

_MILLION = 1_000_000


class FilePrices(BaseModel):
    """One model's entry, in US dollars per million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cache_read: float | None = Field(default=None, ge=0)
    cache_write_5m: float | None = Field(default=None, ge=0)
    cache_write_1h: float | None = Field(default=None, ge=0)
    batch_factor: float | None = Field(default=None, gt=0, le=1)

    def unit_prices(self, *, batch: bool, source: str) -> UnitPrices | None:
        """Return the prices per token; None for a batch without a factor."""
        factor = self.batch_factor if batch else 1.0
        if factor is None:
            return None

        def per_token(price: float) -> float:
            return price * factor / _MILLION

        def optional(price: float | None) -> float | None:
            return None if price is None else per_token(price)

        return UnitPrices(
            input=per_token(self.input),
            output=per_token(self.output),
            cache_read=optional(self.cache_read),
            cache_write_5m=optional(self.cache_write_5m),
            cache_write_1h=optional(self.cache_write_1h),
            source=f"{source}, batch" if batch else source,
        )


_file = TypeAdapter(dict[str, FilePrices])


def read_price_file(path: Path) -> Mapping[str, FilePrices]:
    """Read and validate a price file.

    Raises:
        ConfigurationError: naming the file and each entry that is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The price file {str(path)!r} cannot be read: {error}. Correct it, or unset GUIDANCE_PRICES_FILE."
        ) from error
    try:
        return _file.validate_python(values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigurationError(
            f"The price file {str(path)!r} is not valid: {faults}. It holds US dollars per million tokens by model "
            "name, such as {'provider/model': {'input': 2, 'output': 10}}."
        ) from error
