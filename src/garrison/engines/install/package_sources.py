"""Where an installation gets its packages, for uv and pip alike.

pip reads `PIP_*` variables and uv does not, so settings for pip are translated. Index addresses may contain
credentials, so they are passed in the environment and never in an argv.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["PackageSources", "child_environment", "sources_from"]

_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")
"""Variables that would redirect an installation into another environment."""


@dataclass(frozen=True, slots=True)
class PackageSources:
    """Attributes:
    find_links: directories or pages with distributions.
    index: an index instead of the public one.
    extra_indexes: further ones; the best match of all is used, as in pip.
    offline: use no index and no network.
    """

    find_links: tuple[str, ...] = ()
    index: str | None = field(default=None, repr=False)
    extra_indexes: tuple[str, ...] = field(default=(), repr=False)
    offline: bool = False

    @property
    def names_any(self) -> bool:
        return bool(self.find_links or self.index or self.extra_indexes or self.offline)


def sources_from(
    environ: Mapping[str, str],
    *,
    find_links: Sequence[str] = (),
    extra_indexes: Sequence[str] = (),
    offline: bool = False,
) -> PackageSources:
    """The sources that were given, and those that pip's variables add."""
    return PackageSources(
        find_links=(*find_links, *environ.get("PIP_FIND_LINKS", "").split()),
        index=environ.get("PIP_INDEX_URL") or None,
        extra_indexes=(*extra_indexes, *environ.get("PIP_EXTRA_INDEX_URL", "").split()),
        offline=offline or environ.get("PIP_NO_INDEX", "").lower() in ("1", "true", "yes", "on"),
    )


def child_environment(environ: Mapping[str, str], sources: PackageSources) -> dict[str, str]:
    """The environment for uv or pip; settings for uv itself are kept."""
    result = {name: value for name, value in environ.items() if name not in _FOREIGN}
    result |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    result.setdefault("UV_PYTHON_DOWNLOADS", "never")
    if sources.find_links:
        result["PIP_FIND_LINKS"] = " ".join(sources.find_links)
        result["UV_FIND_LINKS"] = ",".join((*sources.find_links, *_given(environ, "UV_FIND_LINKS")))
    if sources.offline:
        return result | {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}
    if sources.index:
        result.setdefault("UV_DEFAULT_INDEX", sources.index)
    if sources.extra_indexes:
        result["PIP_EXTRA_INDEX_URL"] = " ".join(sources.extra_indexes)
        result["UV_EXTRA_INDEX_URL"] = " ".join((*sources.extra_indexes, *_given(environ, "UV_EXTRA_INDEX_URL")))
        # uv stops at the first index that has the name; pip compares all of them.
        result.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    for ours, uvs in (("PIP_CERT", "SSL_CERT_FILE"), ("PIP_TRUSTED_HOST", "UV_INSECURE_HOST")):
        if environ.get(ours):
            result.setdefault(uvs, environ[ours])
    if environ.get("PIP_DEFAULT_TIMEOUT"):
        result.setdefault("UV_HTTP_TIMEOUT", environ["PIP_DEFAULT_TIMEOUT"])
    return result


def _given(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    return (environ[name],) if environ.get(name) else ()
