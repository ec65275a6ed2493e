"""What to resolve, with the settings that matter for it, as one value."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from garrison.base.errors import InvalidError
from garrison.base.settings import SOURCES, Settings
from garrison.models.layout import Layout
from garrison.models.names import ModelName, model_from_directory, parse_model

__all__ = ["NETWORK_SOURCES", "ResolveRequest"]

NETWORK_SOURCES = frozenset({"r2", "hf-hub"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolveRequest:
    """Attributes:
    sources: in the order they are tried.
    hub_caches: further Hugging Face caches that are searched, after that of the models root.
    skip_tokenizer: accept a model without tokenizer files.
    allow_gguf: accept GGUF without a config.json.
    allow_patterns: shell patterns; only files that match one are downloaded. Empty: what an engine needs.
    verify: check the content of every file against digests.
    offline: skip the sources that need a network.
    lock_timeout: seconds.
    keep_logs: keep the log of a successful download.
    """

    model: ModelName
    layout: Layout
    sources: tuple[str, ...] = SOURCES
    flox_env: Path | None = None
    hub_caches: tuple[Path, ...] = ()
    r2_bucket: str | None = None
    r2_prefix: str | None = None
    r2_endpoint: str | None = None
    hf_endpoint: str | None = None
    hf_token: str | None = field(default=None, repr=False)
    skip_tokenizer: bool = False
    allow_gguf: bool = True
    allow_patterns: tuple[str, ...] = ()
    verify: bool = False
    offline: bool = False
    lock_timeout: float = 300.0
    keep_logs: bool = False

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        model: str | None = None,
        *,
        offline: bool = False,
        verify: bool = False,
        skip_tokenizer: bool | None = None,
        allow_gguf: bool = True,
        allow_patterns: tuple[str, ...] = (),
        hub_caches: tuple[Path, ...] = (),
    ) -> Self:
        """Args:
            model: what the user typed; None for `VLLM_MODEL` with `VLLM_MODEL_ID` or `VLLM_MODEL_ORG`.
            skip_tokenizer: None for the value in the settings.

        Raises:
            InvalidError: no model is named, or its name breaks a rule.
        """
        return cls(
            model=_model(settings, model),
            layout=Layout.from_settings(settings),
            sources=settings.model_sources,
            flox_env=settings.flox_env,
            hub_caches=hub_caches,
            r2_bucket=settings.r2_bucket,
            r2_prefix=settings.r2_models_prefix,
            r2_endpoint=settings.r2_endpoint_url,
            hf_endpoint=settings.hf_endpoint,
            hf_token=settings.hf_token,
            skip_tokenizer=settings.skip_tokenizer_check if skip_tokenizer is None else skip_tokenizer,
            allow_gguf=allow_gguf,
            allow_patterns=allow_patterns,
            verify=verify,
            offline=offline,
            lock_timeout=float(settings.resolve_lock_timeout),
            keep_logs=settings.keep_logs,
        )


def _model(settings: Settings, text: str | None) -> ModelName:
    if text is not None:
        model = parse_model(text, org=settings.model_org, revision=settings.model_revision)
        if settings.model_id is not None and model.path is not None:
            return replace(model, given_id=settings.model_id)
        return model
    if settings.model is None:
        raise InvalidError("VLLM_MODEL is not set", hint="Name the model: VLLM_MODEL=NAME, with VLLM_MODEL_ORG=ORG.")
    return model_from_directory(
        settings.model, model_id=settings.model_id, org=settings.model_org, revision=settings.model_revision
    )
