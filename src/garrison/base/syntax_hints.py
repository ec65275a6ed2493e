"""What to do about the complaints of the YAML parser, which name the token it met and not the usual mistake. Pure."""

__all__ = ["JSON_HINT", "TOML_HINT", "yaml_hint"]

JSON_HINT = "JSON has double quotes around keys and texts, no comma after the last item, and no comments."
TOML_HINT = 'TOML has one `key = value` per line, with texts in quotes: key = "value".'
_YAML_HINTS = (
    ("'\\t'", "Indent with spaces: YAML allows no tabs there."),
    ("mapping values are not allowed", "Check the indentation, and quote a text that contains `: `."),
    ("could not find expected ':'", "Write `key: value`, with a space after the colon."),
    ("expected ',' or ']'", "Separate the items with commas, and close the list with `]`."),
    ("expected ',' or '}'", "Separate the entries with commas, and close the mapping with `}`."),
    ("expected <block end>", "Check the indentation: entries of one mapping or list begin in the same column."),
    ("expected a single document", "Keep one document in a file: remove what follows the line `---`."),
    ("expected the node content", "Write the missing value, or close the bracket."),
    ("scanning an alias", "Quote a text that begins with `*`."),
    ("undefined alias", "Quote a text that begins with `*`."),
    ("could not determine a constructor for the tag", "Remove the tag, or quote a text that begins with `!`."),
    ("while scanning a quoted scalar", "Close the quotation mark."),
    ("cannot start any token", "Quote a text that begins with this character."),
    ("not allowed", "Remove the control character."),
)


def yaml_hint(complaint: str) -> str:
    """Return the next step for a syntax error, by what the parser says about it."""
    return next((hint for words, hint in _YAML_HINTS if words in complaint), "Correct the YAML there.")
