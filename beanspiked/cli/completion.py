"""`beanspiked completion`: prints a script that lets a shell complete commands, options and tubes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from beanspiked.cli import COMMANDS
from beanspiked.cli.arguments import Parser, option_strings
from beanspiked.cli.command import run
from beanspiked.config import LONG

if TYPE_CHECKING:
    import argparse

__all__ = ["main", "parser"]

SHELLS: Final = ("bash", "zsh", "fish")
# Commands whose arguments are tubes.
OF_TUBES: Final = ("stats", "tubes", "peek", "jobs", "put", "work", "kick", "move", "clear", "pause", "wait", "health")

BASH: Final = """\
# beanspiked: completion for bash.
_beanspiked() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}} words i
    COMPREPLY=()
    for ((i = 2; i < COMP_CWORD; i++)); do
        if [[ ${{COMP_WORDS[i]}} == -- ]]; then
            [[ $i == $((COMP_CWORD - 1)) && $word != */* ]] && mapfile -t COMPREPLY < <(compgen -c -- "$word")
            compopt -o default
            return
        fi
    done
    if ((COMP_CWORD == 1)) && [[ $word != -* ]]; then
        words='{commands}'
    else
        case $command in
{cases}
        *) words='{server}' ;;
        esac
        if [[ $word != -* ]]; then
            words=
            case $command in
            {of_tubes})
                # Not by compgen -W, which would execute a name such as $(...).
                while IFS= read -r i; do
                    [[ $i == "$word"* ]] && COMPREPLY+=("$(printf %q "$i")")
                done < <(beanspiked tubes --names 2>/dev/null)
                return
                ;;
            completion) words='{shells}' ;;
            *)
                # The shell's own completion of files quotes their names.
                compopt -o default
                return
                ;;
            esac
        fi
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -F _beanspiked beanspiked
"""
ZSH: Final = """\
#compdef beanspiked
# beanspiked: completion for zsh.
_beanspiked() {{
    local -a found
    if ((CURRENT == 2)) && [[ $words[2] != -* ]]; then
        found=({described})
        _describe command found
        return
    fi
    if (($words[(i)--] < CURRENT)); then
        # As if the line began with the command.
        ((CURRENT -= $words[(i)--]))
        shift $words[(i)--] words
        _normal
        return
    fi
    if [[ $words[CURRENT] == -* ]]; then
        case $words[2] in
{cases}
        *) found=({server}) ;;
        esac
        compadd -- $found
        return
    fi
    case $words[2] in
    {of_tubes}) found=(${{(f)"$(beanspiked tubes --names 2>/dev/null)"}}) && compadd -- $found ;;
    completion) compadd -- {shells} ;;
    *) _files ;;
    esac
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _beanspiked "$@"
else
    compdef _beanspiked beanspiked
fi
"""


def parser() -> Parser:
    """Return the command's parser."""
    words = Parser(
        "completion",
        "Print a script with which a shell completes commands, options and tubes. The tubes are those\n"
        "of the server that BEANSPIKED_ADDR names.",
        "  beanspiked completion bash > /etc/bash_completion.d/beanspiked\n"
        "  beanspiked completion zsh > ~/.zfunc/_beanspiked      # a folder of your $fpath\n"
        "  beanspiked completion fish > ~/.config/fish/completions/beanspiked.fish",
        server=False,
    )
    words.add_argument("shell", choices=SHELLS)
    return words


def main(words: list[str]) -> int:
    """Run the command; return the exit code."""
    return run(parser(), words, _completion)


def _completion(options: argparse.Namespace) -> int:
    known = {name: _options(name) for name in COMMANDS}
    server = sorted([*(f"--{name}" for name in LONG), *(key for key in LONG.values() if len(key) == 2)])
    if options.shell == "fish":
        sys.stdout.writelines(f"{line}\n" for line in _fish(known, server))
        return 0
    array = options.shell == "zsh"
    form = "        {}) found=({}) ;;" if array else "        {}) words='{}' ;;"
    cases = "\n".join(form.format(name, " ".join(words)) for name, words in known.items())
    text = (ZSH if array else BASH).format(
        commands=" ".join(COMMANDS),
        described=" ".join(f"{_quoted(f'{name}:{text}')}" for name, text in COMMANDS.items()),
        cases=cases,
        server=" ".join(server),
        of_tubes=" | ".join(OF_TUBES),
        shells=" ".join(SHELLS),
    )
    sys.stdout.write(text)
    return 0


def _options(name: str) -> list[str]:
    """List the options of a command."""
    module = __import__(f"beanspiked.cli.{name}", fromlist=["main"])
    return sorted(getattr(module, "OPTIONS", None) or option_strings(module.parser()))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(known: dict[str, list[str]], server: list[str]) -> list[str]:
    lines = ["# beanspiked: completion for fish."]
    for name, text in COMMANDS.items():
        lines.append(f"complete -c beanspiked -f -n __fish_use_subcommand -a {name} -d {_quoted(text)}")
    lines += [f"complete -c beanspiked -n __fish_use_subcommand {_fish_option(word)}" for word in server]
    for name, words in known.items():
        seen = _quoted(f"__fish_seen_subcommand_from {name}")
        lines += [f"complete -c beanspiked -n {seen} {_fish_option(word)}" for word in words]
    tubes = _quoted("(beanspiked tubes --names 2>/dev/null)")
    lines.append(
        f"complete -c beanspiked -f -n {_quoted('__fish_seen_subcommand_from ' + ' '.join(OF_TUBES))} -a {tubes}"
    )
    lines.append(
        f"complete -c beanspiked -f -n '__fish_seen_subcommand_from completion' -a {_quoted(' '.join(SHELLS))}"
    )
    return lines


def _fish_option(word: str) -> str:
    return f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}"
