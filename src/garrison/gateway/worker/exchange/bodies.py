"""The model in a body, wherever its kind of request has it, and the body with another one, or other parameters."""

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from garrison.gateway.requests.body_fields import read_fields
from garrison.gateway.requests.changed_form import changed_form
from garrison.gateway.requests.multipart import FormModel, form_model, renamed_form
from garrison.gateway.requests.paths import Asked, ModelIn
from garrison.gateway.requests.rewrite import Rewrite, rewrite, rewritten, with_usage

__all__ = ["NamedModel", "named_model"]


_CONTINUOUS = b'"continuous_usage_stats"'


class NamedModel(NamedTuple):
    """A model as a body names it.

    Attributes:
        stream: whether the answer is to be a stream.
        wants_usage: whether the client asks for `usage` at the end of that.
        has_options: whether the body has `stream_options`.
        continuous: whether those may ask for usage in each event, which a client sees.
    """

    name: str
    form: FormModel | None = None
    stream: bool = False
    wants_usage: bool = False
    has_options: bool = False
    continuous: bool = False

    def changed(self, body: bytes, change: Rewrite, name: str) -> bytes:
        """Return the body with `change` made, and `name` in the model's place; empty to leave that.

        Raises:
            InvalidError: it cannot be changed so.
        """
        change = replace(change, model=name)
        if self.form is not None:
            return changed_form(body, self.form, change)
        return rewritten(body, change, self.name)

    def renamed(self, body: bytes, name: str) -> bytes:
        """Return the body with `name` in its place, and nothing else changed."""
        if self.form is not None:
            return renamed_form(body, self.form, name)
        return rewritten(body, _change(name), self.name)

    def asking_usage(self, body: bytes) -> bytes:
        """Return the body of a stream, with options that ask for usage at its end."""
        return rewritten(body, _USAGE, self.name) if self.has_options else with_usage(body)


def named_model(asked: Asked, body: bytes, content_type: str) -> NamedModel:
    """Return the model that a body names. Raises InvalidError."""
    if asked.model_in is ModelIn.FORM:
        form = form_model(body, content_type)
        return NamedModel(form.name, form)
    found = read_fields(body)
    if found.stream is not True:
        return NamedModel(found.model)
    has_options = found.stream_options is not None
    continuous = has_options and _CONTINUOUS in body
    return NamedModel(found.model, None, True, found.wants_usage, has_options, continuous)


@lru_cache(maxsize=4096)
def _change(name: str) -> Rewrite:
    return rewrite(model=name)


_USAGE = rewrite(usage=True)
