"""What a setting is: one row of the table in `settings`, and how its text becomes a value."""

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field
from typing import Any

from garrison.base import values
from garrison.base.errors import InvalidError
from garrison.base.mistyped import PREFIX
from garrison.base.service_links import service_link

__all__ = ["Setting", "as_text", "from_file", "parse", "row_of", "setting"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the settings table.

    Attributes:
        seeds: the seed's own variables, tried in order after `GARRISON_<NAME>`.
        seed_default: the default of the `vllm-*` commands, where the seed documents another one.
        secret: its value is never shown, only whether it is set.
        former: its earlier name, as a variable and in the config file. It works for one more release, with a warning.
        when_empty: for a seed's variable that means something where it is set and empty, what it means.
    """

    name: str
    group: str
    help: str
    parse: values.Parser
    default: Any
    seeds: tuple[str, ...] = ()
    seed_default: Any = None
    secret: bool = False
    former: str | None = None
    when_empty: Mapping[str, str] = field(default_factory=dict)

    @property
    def env(self) -> str:
        return _variable(self.name)

    @property
    def former_env(self) -> str | None:
        return None if self.former is None else _variable(self.former)


def setting(
    group: str,
    help: str,
    parse: values.Parser,
    default: Any = None,
    *,
    seeds: tuple[str, ...] = (),
    seed_default: Any = None,
    secret: bool = False,
    former: str | None = None,
    when_empty: Mapping[str, str] | None = None,
) -> Any:
    row = {
        "group": group, "help": help, "parse": parse, "seeds": seeds, "seed_default": seed_default, "secret": secret,
        "former": former, "when_empty": when_empty or {},
    }  # fmt: skip
    return field(default=default, metadata=row, repr=not secret)


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def row_of(item: "Field[Any]") -> Setting:
    meta = item.metadata
    default = item.default if item.default is not None and not callable(item.default_factory) else None
    return Setting(
        name=item.name,
        group=meta["group"],
        help=meta["help"],
        parse=meta["parse"],
        default=default,
        seeds=meta.get("seeds", ()),
        seed_default=meta.get("seed_default"),
        secret=meta.get("secret", False),
        former=meta.get("former"),
        when_empty=meta.get("when_empty", {}),
    )


def parse(row: Setting, where: str, raw: str) -> Any:
    return _checked(row, where, lambda: row.parse(raw), raw)


def _checked(row: Setting, where: str, value: Callable[[], Any], given: Any) -> Any:
    try:
        return value()
    except ValueError as error:
        if isinstance(given, str) and (link := service_link(where, given)):
            raise InvalidError(
                f"{where} must be {error}, not {given!r}, which Kubernetes sets for a service called {link!r}",
                hint="Set `enableServiceLinks: false` in the pod's spec, rename the service, "
                f"or set {row.env} to the value that you want.",
                details={"setting": row.name},
            ) from None
        shown = "" if row.secret else f", not {given!r}"
        raise InvalidError(
            f"{where} must be {error}{shown}",
            hint=f"{row.help} Unset it for the default.",
            details={"setting": row.name},
        ) from None


def from_file(row: Setting, where: str, value: Any) -> Any:
    """Return the value of a line of the config file, which may be a YAML list or mapping."""
    if row.parse is values.words and isinstance(value, list):
        return tuple(str(word) for word in value)
    if isinstance(value, dict) and isinstance(row.parse, values.Pairs):
        pairs = row.parse
        return _checked(row, where, lambda: pairs.of_mapping(value), value)
    return parse(row, where, as_text(value))


def as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, list | tuple):
        return ",".join(str(part) for part in value)
    return str(value)
