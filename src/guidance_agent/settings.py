"""Settings from arguments, environment (`GUIDANCE_*`) and a TOML file, validated in one place.

Arguments win over the environment, the environment over the file. The file is the one named by `GUIDANCE_CONFIG`, else
`guidance.toml` in the working directory, else `config.toml` in the data folder. Provider keys and addresses are read
from the variables that the providers' own tools use (`ANTHROPIC_API_KEY`, `OPENAI_BASE_URL`, …) where a provider is
resolved, not here.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from guidance_agent.errors import ConfigurationError
from guidance_agent.settings_faults import faults_in_words, misplaced_keys

__all__ = [
    "OPERATIONS",
    "Amounts",
    "AuditSettings",
    "CalculationSettings",
    "GateSettings",
    "JobSettings",
    "LimitSettings",
    "ModelLimits",
    "OperationSettings",
    "ProviderLimits",
    "ProviderOptions",
    "ProviderSettings",
    "RefinementSettings",
    "ResponseCacheSettings",
    "RetrySettings",
    "Settings",
    "SimulatorMode",
    "TimeoutSettings",
    "TraceSettings",
    "TracingMode",
]

SimulatorMode = Literal["realistic", "instant"]
TracingMode = Literal["auto", "on", "off", "console"]
Amounts = Literal["keep", "round", "hide"]
"""What redaction does about sums of money."""

OPERATIONS = (
    "audit",
    "batch",
    "calculation",
    "check_set",
    "completion",
    "consolidation",
    "doctor",
    "embedding",
    "gate",
    "guidance",
    "importance",
    "insights",
    "judge",
    "principle_refinement",
    "principle_validation",
    "reasoning",
    "refinement",
    "reflection",
    "rule_value",
)
"""What the package asks models for; each may have settings of its own under `operations`."""

_CHAT = frozenset({"calculation", "completion", "doctor", "embedding", "gate", "guidance", "reasoning", "refinement"})
"""Operations that somebody waits for; names that are no operation of the package belong to them too."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class RetrySettings(_Section):
    """Retries before the first token. Times are in seconds.

    Waits use full jitter: a random time up to `backoff_factor * 2**attempt`, at most `max_wait`. A `Retry-After` of the
    provider replaces it; one longer than `max_wait` ends the attempts. `deadline` bounds all attempts together.

    In the section of a provider or an operation only the fields that are written there count; see `Settings.retry_for`.
    """

    max_attempts: int = Field(default=3, ge=1, le=20)
    backoff_factor: float = Field(default=0.5, ge=0)
    max_wait: float = Field(default=30.0, ge=0, le=3_600)
    respect_retry_after: bool = True
    deadline: float = Field(default=120.0, gt=0)

    def overridden_by(self, *sections: RetrySettings | None) -> RetrySettings:
        """Return these settings with the fields that the sections name; of two that name one, the later wins."""
        named: dict[str, Any] = {}
        for section in sections:
            if section is not None:
                named.update({name: getattr(section, name) for name in section.model_fields_set})
        return self.model_copy(update=named)


class TimeoutSettings(_Section):
    """Time-outs in seconds. Time spent waiting for a slow caller counts for none of them.

    `without_content` is how long pings alone keep a stream alive.
    """

    connect: float = Field(default=5.0, gt=0, le=600)
    first_event: float = Field(default=60.0, gt=0, le=3_600)
    between_events: float = Field(default=20.0, gt=0, le=3_600)
    without_content: float = Field(default=60.0, gt=0, le=3_600)
    turn: float = Field(default=300.0, gt=0)
    idle_consumer: float = Field(default=60.0, gt=0)


class ModelLimits(_Section):
    """What a minute allows; None leaves it open. Calls queue for it instead of failing.

    `tokens_per_minute` counts as the provider does: input that was not read from a cache where it limits the output
    apart, else input and output together.
    """

    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    output_tokens_per_minute: float | None = Field(default=None, gt=0)


class ProviderLimits(ModelLimits):
    """The limits of each of a provider's models by itself; in `models`, what differs for one."""

    models: dict[str, ModelLimits] = Field(default_factory=dict)


class LimitSettings(_Section):
    """How calls queue for the limits of `providers.<name>.limits`. Times are in seconds."""

    adapt: bool = True
    """Whether a refusal (429) limits a model that had no limit, and lowers the rate of one that had."""
    shared: bool = True
    """Whether all processes with the same database share the limits, or each has them for itself."""
    burst: float = Field(default=10.0, gt=0, le=60)
    """For how long an unused rate is saved up, to be spent at once."""
    background_wait: float = Field(default=3_600.0, gt=0)
    """How long work in the background may queue; calls that somebody waits for have their `retry.deadline`."""


_Threshold = Literal["OFF", "BLOCK_NONE", "BLOCK_ONLY_HIGH", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_LOW_AND_ABOVE"]


class ProviderOptions(_Section):
    """What only some providers take; one that a provider does not take is an error when its model is asked for."""

    seed: int | None = None
    """The same seed and prompt give mostly the same answer."""
    json_mode: bool | None = None
    """Ask for JSON where a schema is wanted that the model cannot be held to; only for models that know the mode."""
    safety: dict[str, _Threshold] = Field(default_factory=dict)
    """From which probability on an answer is withheld, by category, such as `HARM_CATEGORY_HARASSMENT`."""
    keep_alive: float | None = Field(default=None, ge=-1)
    """Seconds that a model stays loaded after a call; -1 is for ever, 0 not at all."""
    num_ctx: int | None = Field(default=None, ge=512)
    """Tokens of context that a model is loaded with."""


class ProviderSettings(_Section):
    """What differs from a provider's defaults. `wire` is needed for a provider the package does not know."""

    api_key: SecretStr | None = None
    base_url: str | None = None
    wire: Literal["anthropic", "openai"] | None = None
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    retry: RetrySettings | None = None
    limits: ProviderLimits | None = None
    options: ProviderOptions = ProviderOptions()
    cache_minimum_tokens: dict[str, int] = Field(default_factory=dict)
    context_window: dict[str, int] = Field(default_factory=dict)
    cache_keys: int | None = Field(default=None, ge=1, le=1_000)
    """Over how many prompt-cache keys consultations are spread, where the provider takes keys; None is its default."""


class OperationSettings(_Section):
    """What differs for one of `OPERATIONS`, whichever provider answers it."""

    retry: RetrySettings | None = None
    priority: Literal["chat", "background"] | None = None
    """Who goes first where calls queue for a limit; None is `chat` for what somebody waits for."""


class GateSettings(_Section):
    """The gate between the model's text and the customer. `deadline` is in seconds.

    `actions` overrides what is done about a breach, by the name of the check.
    """

    mode: Literal["on", "off"] = "on"
    ask: bool = True
    """Whether a fast model is asked about sentences that the rules leave undecided, where there is one."""
    deadline: float = Field(default=0.8, gt=0, le=30)
    """After this long without an answer about a sentence, `undecided` says what happens to it."""
    undecided: Literal["release_and_flag", "replace"] = "release_and_flag"
    actions: dict[str, Literal["replace", "stop", "flag"]] = Field(default_factory=dict)
    closing: bool = True
    """Whether the program adds a signpost and a risk warning where the answer lacks them."""


class RefinementSettings(_Section):
    """What `provide_guidance` does about answers that fail their checks."""

    rounds: int = Field(default=2, ge=0, le=10)
    """How often an answer that failed is written again."""
    borderline: float = Field(default=0.7, ge=0, le=1)
    """An answer that passed with less confidence than this is strengthened once; 0 strengthens none."""
    never_passes: Literal["error", "safe_answer"] = "error"
    """What the caller gets when no version passed: `GuidanceNotCompliantError`, or reviewed wording in its place."""


class ResponseCacheSettings(_Section):
    """The local cache of whole answers to equal requests. `ttl` is in seconds.

    Only calls of the named operations are looked up and kept, and a caller may name operations of their own.
    """

    enabled: bool = False
    ttl: float = Field(default=86_400.0, gt=0, le=31_536_000.0)
    operations: tuple[str, ...] = ("completion",)
    max_entries: int = Field(default=10_000, ge=1)


class TraceSettings(_Section):
    """What spans say and where they go; whether there are any is `tracing`."""

    endpoint: str | None = None
    """The collector, such as `http://127.0.0.1:6006`; None takes the variables of OpenTelemetry and Phoenix."""
    project: str | None = None
    """Phoenix project; None is `PHOENIX_PROJECT_NAME`, or `guidance-agent`."""
    redact: bool = True
    """Whether personal data is taken out of what leaves the process; only for trusted systems to be switched off."""
    amounts: Amounts = "keep"
    """What redaction does about amounts of money."""
    user_key: SecretStr | None = None
    """Key of the hash that stands for a customer's id; None is one that the data folder keeps."""
    phoenix: str | None = None
    """Address of Phoenix's pages and REST interface; None is the collector's, because Phoenix has both in one place."""
    annotation_days: float = Field(default=30.0, gt=0, le=3_650)
    """For how many days the verdict on an answer is offered to Phoenix when it cannot be delivered."""


def _cron(line: str) -> str:
    fields = line.split()
    if len(fields) != 5 or not all(_CRON_FIELD.fullmatch(each) for each in fields):
        raise ValueError(f"{line!r} is no schedule. Write minute, hour, day, month and weekday, such as '0 2 * * *'")
    return line


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        raise ValueError(f"{name!r} is no time zone. Use a name such as 'Europe/London'") from error
    return name


_CRON_FIELD = re.compile(r"[0-9A-Za-z*/,-]+")
_Cron = Annotated[str, AfterValidator(_cron)]


class CalculationSettings(_Section):
    """Sums that a fast model has worked out by the pension calculators before an answer begins."""

    enabled: bool = False
    deadline: float = Field(default=3.0, gt=0)
    """Seconds that the answer waits for the model's choice of sums."""


class AuditSettings(_Section):
    """Which delivered answers are judged once more in batches by the nightly job, and by whom."""

    share: float = Field(default=1.0, ge=0, le=1)
    """Which part of them; a larger one holds the smaller."""
    model: str | None = None
    """The judge; None is the one that judges answers while they are given."""


class JobSettings(_Section):
    """When a worker runs the jobs of batches, and how much new work a night takes."""

    schedule: bool = False
    """Whether `guidance-agent worker` runs the two jobs; leave it off where cron or systemd do."""
    nightly: _Cron = "0 2 * * *"
    afternoon: _Cron = "0 14 * * *"
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "Europe/London"
    limit: int = Field(default=1_000, ge=1)
    """New subjects of each kind of work that a nightly run takes at most; the rest waits for the next."""


def _known_operations(operations: dict[str, OperationSettings]) -> dict[str, OperationSettings]:
    for name in operations:
        if name not in OPERATIONS:
            close = difflib.get_close_matches(name, OPERATIONS, n=1)
            guess = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{name!r} is no operation.{guess} Use one of {', '.join(OPERATIONS)}")
    return operations


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{str(path)!r} names no home folder: {error}") from error


_UserPath = Annotated[Path, AfterValidator(_expanded)]


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "guidance-agent"


class Settings(BaseSettings):
    """All settings of the package.

    Nested values use a double underscore in the environment: `GUIDANCE_TIMEOUTS__CONNECT=3`,
    `GUIDANCE_PROVIDERS__OLLAMA__BASE_URL=http://127.0.0.1:11434/v1`. An empty variable counts as unset.

    Raises:
        ConfigurationError: from `Settings.load`, naming each field that is wrong.
    """

    model_config = SettingsConfigDict(
        env_prefix="GUIDANCE_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    model: str | None = None
    """Author model; None chooses by the keys that are set, or the simulator."""
    reasoning_model: str | None = None
    """Fast model for private reasoning and ratings; None chooses the author provider's fast model."""
    judge_model: str | None = None
    """Judges answers; None chooses another strong model of the author's provider, or the author if it has none."""
    judge_deadline: float = Field(default=86_400.0, gt=0)
    """Seconds after which an answer that could not be judged waits for a person."""
    judge_calls: int = Field(default=4, ge=1, le=256)
    """Calls of the judge that a process makes at the same time."""
    gate_model: str | None = None
    """Decides single sentences that the rules cannot; None is the reasoning model, if a fast one is set up."""
    embedding_model: str | None = None
    """Provider model such as `openai/text-embedding-3-small`; None is the offline embedder."""
    fallbacks: tuple[str, ...] = ()
    transport: Literal["auto", "native", "litellm"] = "auto"
    enable_prompt_caching: bool = True
    reasoning_deadline: float = Field(default=2.0, gt=0)
    """Seconds after which the answer starts with the reasoning that has arrived by then."""
    calculations: CalculationSettings = CalculationSettings()
    max_answer_tokens: int = Field(default=1024, ge=16, le=64_000)
    data_dir: _UserPath = Field(default_factory=_default_data_dir)
    database_url: str | None = Field(default=None, repr=False)
    """SQLAlchemy URL; None is an SQLite file in the data folder."""
    auto_migrate: bool = True
    knowledge_dir: _UserPath | None = None
    prices_file: _UserPath | None = None
    """JSON or TOML file of unit prices that override the price map."""
    background: bool = True
    """Whether this process judges answers, rates memories and closes turns that another process left behind."""
    simulator: SimulatorMode = "realistic"
    """Latency of the embedded simulator: like a provider's, or none."""
    simulator_seed: int = 7
    config: Path | None = None
    """Read from `GUIDANCE_CONFIG`; the file these settings came from, if it was named there."""
    tracing: TracingMode = "auto"
    """Whether spans leave: `auto` where a collector is set up or a local Phoenix runs; `console` as lines."""
    trace: TraceSettings = TraceSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    retry: RetrySettings = RetrySettings()
    limits: LimitSettings = LimitSettings()
    response_cache: ResponseCacheSettings = ResponseCacheSettings()
    gate: GateSettings = GateSettings()
    refinement: RefinementSettings = RefinementSettings()
    jobs: JobSettings = JobSettings()
    audit: AuditSettings = AuditSettings()
    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    operations: Annotated[dict[str, OperationSettings], AfterValidator(_known_operations)] = Field(default_factory=dict)

    def retry_for(self, provider: str, operation: str) -> RetrySettings:
        """Return the retry settings of a call, decided field by field.

        A field that the operation's section names wins: what a call is worth waiting for depends on what it is for.
        Otherwise it is the provider's, otherwise the general one.
        """
        of_provider, of_operation = self.providers.get(provider), self.operations.get(operation)
        return self.retry.overridden_by(
            None if of_provider is None else of_provider.retry, None if of_operation is None else of_operation.retry
        )

    def limits_for(self, provider: str, model: str) -> ModelLimits:
        """Return the limits of a model, field by field: its own, else those of each of the provider's models."""
        of_provider = self.providers.get(provider, ProviderSettings()).limits or ProviderLimits()
        own = of_provider.models.get(model, ModelLimits())
        named = {name: getattr(own, name) for name in own.model_fields_set}
        return ModelLimits(**{name: getattr(of_provider, name) for name in ModelLimits.model_fields} | named)

    def priority_of(self, operation: str) -> Literal["chat", "background"]:
        """Return whether somebody waits for a call."""
        own = self.operations.get(operation)
        if own is not None and own.priority is not None:
            return own.priority
        return "chat" if operation in _CHAT or operation not in OPERATIONS else "background"

    @classmethod
    def load(cls, config: Path | str | None = None, /, **overrides: Any) -> Settings:
        """Read file and environment; raise `ConfigurationError` with one clause per wrong field."""
        path = _config_path(Path(config) if config else None, overrides.get("data_dir"))
        try:
            values = _merged(_merged(_read_toml(path), EnvSettingsSource(cls)()), overrides)
            if misplaced := misplaced_keys(values):
                raise _invalid(path, "; ".join(misplaced))
            return cls(**values)
        except ValidationError as error:
            raise _invalid(path, "; ".join(faults_in_words(error, cls))) from error
        except SettingsError as error:
            raise _invalid(path, f"{error}; a list or table in the environment is written as JSON") from error


def _invalid(path: Path | None, faults: str) -> ConfigurationError:
    sources = f"arguments, environment or {path}" if path else "arguments or environment"
    end = "" if faults.endswith("?") else "."
    return ConfigurationError(f"Settings are not valid: {faults}{end} Correct them in {sources}.")


def _config_path(named: Path | None, data_dir: Path | str | None) -> Path | None:
    if named is None and (variable := os.environ.get("GUIDANCE_CONFIG")):
        named = Path(variable)
    try:
        if named is not None:
            named = _expanded(named)
            if not named.is_file():
                raise ConfigurationError(
                    f"The config file {str(named)!r} does not exist or is not a file. Create it, or name another in "
                    "GUIDANCE_CONFIG."
                )
            return named
        folder = _expanded(Path(data_dir or os.environ.get("GUIDANCE_DATA_DIR") or _default_data_dir()))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"A path in the settings cannot be used: {error}. Write it in full.") from error
    candidates = (Path("guidance.toml"), folder / "config.toml")
    return next((path for path in candidates if path.is_file()), None)


def _read_toml(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"The config file {str(path)!r} cannot be read: {error}. Correct the file.") from error


def _merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        result[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result
