"""`If-Match`: a change that is made only if nobody made another since."""

from typing import Annotated

from fastapi import Header

from garrison.base.errors import ConflictError

__all__ = ["IfMatch", "check_match"]

IfMatch = Annotated[str | None, Header(description="Change it only if its `ETag` is this.")]


class _PreconditionError(ConflictError):
    """The entity tag is an old one."""

    http_status = 412


def check_match(what: str, tag: str, wanted: str | None) -> None:
    """Raise ConflictError, with status 412, if `wanted` is given and `tag` is not among its tags."""
    if wanted is not None and wanted.strip() != "*" and tag not in [one.strip() for one in wanted.split(",")]:
        raise _PreconditionError(
            f"{what} was changed since {wanted}", hint="Read it again, and repeat the change.", details={"etag": tag}
        )
