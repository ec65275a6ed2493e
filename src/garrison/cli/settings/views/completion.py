"""Completion scripts of shells. Pure."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

__all__ = ["SCRIPTS", "bash", "fish", "zsh"]


class _Word(Protocol):
    @property
    def spellings(self) -> tuple[str, ...]: ...
    @property
    def help(self) -> str: ...
    @property
    def takes_value(self) -> bool: ...
    @property
    def values(self) -> tuple[str, ...]: ...


class _Node(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def words(self) -> Sequence[_Word]: ...
    @property
    def options(self) -> Sequence[_Word]: ...


Nodes = Sequence[_Node]

_BASH = """
_garrison() {
    local cur=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} at=garrison found i
    # --option=value is three words here.
    if [[ $cur == = ]]; then cur=; elif [[ $before == = ]]; then before=${COMP_WORDS[COMP_CWORD - 2]}; fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == -- ]] && return
        [[ -n $(_garrison_words "$at ${COMP_WORDS[i]}") ]] && at+=" ${COMP_WORDS[i]}"
    done
    found=$(_garrison_values "$at $before") || {
        found=$(_garrison_words "$at")
        [[ $cur == -* ]] || found=$(printf '%s\\n' $found | grep -v ^-)
    }
    COMPREPLY=($(compgen -W "$found" -- "$cur"))
}
complete -o default -F _garrison garrison
"""

_ZSH = """
_garrison() {
    local at=garrison word option=${words[CURRENT-1]}
    local -a found
    for word in ${words[2,CURRENT-1]}; do
        [[ $word == -- ]] && { _files; return }
        [[ -n $(_garrison_words "$at $word") ]] && at+=" $word"
    done
    if [[ $PREFIX == --*=* ]]; then option=${PREFIX%%=*}; compset -P '*='; fi
    if word=$(_garrison_values "$at $option"); then
        found=(${=word})
    else
        found=(${=$(_garrison_words "$at")})
        if [[ $PREFIX == -* ]]; then found=(${(M)found:#-*}); else found=(${found:#-*}); fi
    fi
    if (( $#found )); then compadd -a found; else _files; fi
}
if [[ $funcstack[1] == _garrison ]]; then _garrison "$@"; else compdef _garrison garrison; fi
"""

_FISH = """\
function __garrison_at
    set -l at garrison
    for word in (commandline -opc)[2..-1]
        test "$word" = --; and return 1
        contains -- "$at $word" $__garrison_paths; and set at "$at $word"
    end
    test "$at" = "$argv"
end
"""


def bash(nodes: Nodes) -> str:
    """Of options with any value, files are the completion: bash's default."""
    return _functions(nodes) + _BASH


def zsh(nodes: Nodes) -> str:
    """May be evaluated, or be the file `_garrison` in a directory of `$fpath`."""
    return "#compdef garrison\n" + _functions(nodes) + _ZSH


def fish(nodes: Nodes) -> str:
    """With the help of each word."""
    paths = " ".join(shlex.quote(node.path) for node in nodes)
    lines = [line for node in nodes for line in _fish_lines(node)]
    return f"set -g __garrison_paths {paths}\n{_FISH}" + "".join(f"{line}\n" for line in lines)


SCRIPTS: dict[str, Callable[[Nodes], str]] = {"bash": bash, "zsh": zsh, "fish": fish}


def _functions(nodes: Nodes) -> str:
    """Two functions of a shell: the words that can follow a path, and the values of an option; both fail for others."""
    words = [(node.path, [name for word in (*node.words, *node.options) for name in word.spellings]) for node in nodes]
    values = [
        (f"{node.path} {name}", list(option.values))
        for node in nodes
        for option in node.options
        if option.takes_value
        for name in option.spellings
    ]
    return _function("_garrison_words", words) + _function("_garrison_values", values)


def _function(name: str, rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    cases = "".join(f"    {shlex.quote(key)}) echo {shlex.quote(' '.join(found))} ;;\n" for key, found in rows)
    return f"{name}() {{\n    case $1 in\n{cases}    *) return 1 ;;\n    esac\n}}\n"


def _fish_lines(node: _Node) -> Iterator[str]:
    at = f"complete -c garrison -n {_quoted(f'__garrison_at {node.path}')}"
    for word in node.words:
        yield f"{at} -f -a {_quoted(word.spellings[0])} -d {_quoted(word.help)}"
    for option in node.options:
        names = " ".join(_fish_name(name) for name in option.spellings)
        value = f" -x -a {_quoted(' '.join(option.values))}" if option.values else " -r" if option.takes_value else ""
        yield f"{at} {names}{value} -d {_quoted(option.help)}"


def _fish_name(name: str) -> str:
    if name.startswith("--"):
        return f"-l {name[2:]}"
    return f"-s {name[1:]}" if len(name) == 2 else f"-o {name[1:]}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
