"""Variables that look like a setting and are none. Pure."""

from collections.abc import Collection, Mapping

from garrison.base.service_links import is_service_link

__all__ = ["PREFIX", "mistyped_variables"]

PREFIX = "GARRISON_"
_NOT_SETTINGS = ("GARRISON_CONFIG",)
_FOR_TESTS = "GARRISON_TEST_"
_LIKENESS = 0.7
"""Of two names that may be one with a mistake."""


def mistyped_variables(environ: Mapping[str, str], known: Collection[str]) -> list[str]:
    """A warning for each variable whose name is close to one in `known`.

    A name that is close to none is not reported: it may be the user's own, such as that of a key.
    """
    unknown = [
        name
        for name, value in environ.items()
        if name.startswith(PREFIX)
        and name not in known
        and name not in _NOT_SETTINGS
        and not name.startswith(_FOR_TESTS)
        and not is_service_link(name, value)
    ]
    if not unknown:
        return []
    import difflib

    # The prefix is common to all, and would make any two names look alike.
    short = [name.removeprefix(PREFIX) for name in known]
    near = {name: difflib.get_close_matches(name.removeprefix(PREFIX), short, 1, _LIKENESS) for name in sorted(unknown)}
    return [
        f"{name} is not a setting and has no effect; did you mean {PREFIX}{close[0]}?"
        for name, close in near.items()
        if close
    ]
