"""Writes docs/commands.md from the parsers of `headstart`: `make docs`."""

import argparse
import sys
from pathlib import Path

HEAD = """# Commands

`headstart COMMAND --help` prints the arguments of a command. With `--debug`, a command that fails
prints a traceback. [environment.md](environment.md#exit-codes) lists the exit codes. `make docs`
generates this page from the code."""


def page() -> str:
    """The page, a section for each command."""
    argv, sys.argv = sys.argv, ["headstart", "completion"]  # which gives every parser its options
    try:
        from headstart.cli import _parser

        subcommands = subparsers(_parser())
    finally:
        sys.argv = argv
    parts = [HEAD]
    for choice in subcommands._choices_actions:
        parser = subcommands.choices[choice.dest]
        parts.append(f"\n## `headstart {choice.dest}`\n\n{escaped(choice.help or '')}\n")
        rows = [
            f"| {shown(action)} | {escaped(action.help or '')} |"
            for action in parser._actions
            if action.dest not in ("help", "debug")
        ]
        if rows:
            parts += ["| argument | what it does |", "| --- | --- |", *rows]
    return "\n".join(parts)


def subparsers(
    parser: argparse.ArgumentParser,
) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
    """The action of the parser that has its subcommands."""
    (found,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return found


def shown(action: argparse.Action) -> str:
    """An argument as a user types it."""
    name = action.metavar or "|".join(map(str, action.choices or [])) or action.dest.upper()
    value = "" if action.nargs == 0 else f" {name}".replace("|", "\\|")
    if action.option_strings:
        return ", ".join(f"`{option}{value}`" for option in action.option_strings)
    return f"`{value.strip()}`"


def escaped(text: str) -> str:
    """Help as a cell of a table."""
    return " ".join(text.replace("%%", "%").split()).replace("|", "\\|")


if __name__ == "__main__":
    file = Path(__file__).parent / "commands.md"
    file.write_text(page() + "\n", encoding="utf-8")
    print(f"wrote {file}")
