"""Write ``docs/methods.md`` from the docstrings and the yaml: ``python -m benchmarks.methods``."""

import inspect
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra.utils import get_class

from clients import Attack
from fl_backdoor.config import conf_directory
from fl_backdoor.listing import sentence
from fl_backdoor.papers.page import filled

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
TERMS = ("Threat model", "Assumes", "Remembers", "Guarantee", "Cost", "Known weaknesses")
"""What the notes of a defense say, in this order; a word in italics begins each."""
ATTACK_TERMS = ("Knows", "Cost", "Known weaknesses")
"""And what the words on an attack say."""
HOOKS = {
    "poison": "data", "loss": "loss", "project": "gradients", "constrain": "parameters",
    "craft": "update", "collude": "together",
}  # fmt: skip
"""What an attack changes, by the hooks of `clients.Attack` that it has."""
NEEDS = {"run_model": "runs the model", "root_update": "root data"}


class Method(NamedTuple):
    """A yaml of a group and its class; of an attack whose updates it knows, and what it carries."""

    name: str
    said: str
    kind: type[Any]
    knowledge: str
    carried: str


@cache
def methods(group: str) -> tuple[Method, ...]:
    """Return all horizontal yaml of ``strategy`` or ``attack`` that have a class, by name."""
    found = []
    for path in sorted((conf_directory() / group).glob("*.yaml")):
        with initialize_config_dir(str(conf_directory()), version_base="1.3"):
            config = compose(f"{group}/{path.stem}")
        target = str(config[group].get("_target_") or "")
        if target.startswith(("strategies.", "clients.")) and ".vertical." not in target:
            carried = config[group].get("data")
            found.append(
                Method(
                    path.stem,
                    sentence(path.read_text()),
                    get_class(target),
                    str(config[group].get("knowledge") or "itself"),
                    str(carried._target_).rpartition(".")[2] if carried else "",
                )
            )
    return tuple(found)


def prose(kind: type[Any]) -> str:
    """Return a class's docstring without the sections on arguments and errors, as Markdown."""
    text = inspect.cleandoc(kind.__doc__ or "")
    parts = re.split(r"^(\w+)\n-{3,}\n", text, flags=re.MULTILINE)
    notes = [body for name, body in zip(parts[1::2], parts[2::2], strict=True) if name == "Notes"]
    own = "\n\n".join(part.strip() for part in (parts[0], *notes))
    return re.sub(r"``([^`]+)``", r"`\1`", own).replace("::\n", ":\n")


def terms(kind: type[Any], asked: tuple[str, ...] = TERMS) -> dict[str, str]:
    """Return what a class's prose says under each term, or that of the class it extends."""
    marks, found = _either(asked), dict[str, str]()
    for base in reversed(kind.__mro__):
        for term in asked:
            pattern = rf"\*{_either([term])}\*:?\s+(.+?)(?=\*(?:{marks})\*|\n\n|\Z)"
            if said := re.search(pattern, prose(base), re.DOTALL):
                found[term] = " ".join(said[1].split()).strip(" ,;")
    return found


def defense_table() -> str:
    """Return the table of defenses."""
    lines = [
        "| `strategy=` | class | what | assumes | needs | replies, at least | remembers | cost |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in methods("strategy"):
        said, needs = terms(method.kind), sorted(getattr(method.kind, "needs", ()))
        row = (
            f"[`{method.name}`](#{_anchor(method.kind)})", f"`{method.kind.__name__}`", method.said,
            said.get("Assumes", "-"),
            ", ".join(NEEDS[need] for need in needs if need in NEEDS) or "-",
            str(getattr(method.kind, "least_clients", 1)),
            said.get("Remembers", "nothing"), said.get("Cost", "-"),
        )  # fmt: skip
        lines.append(f"| {' | '.join(_cell(text) for text in row)} |")
    return "\n".join(lines)


def attack_table() -> str:
    """Return the table of attacks."""
    lines = [
        "| `attack=` | class | what | changes | knows the updates of | carries | cost |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in methods("attack"):
        changes = [what for hook, what in HOOKS.items() if _overrides(method.kind, hook)]
        row = (
            f"[`{method.name}`](#{_anchor(method.kind)})", f"`{method.kind.__name__}`", method.said,
            ", ".join(changes), method.knowledge,
            f"`{method.carried}`" if method.carried else "-",
            terms(method.kind, ATTACK_TERMS).get("Cost", "-"),
        )  # fmt: skip
        lines.append(f"| {' | '.join(_cell(text) for text in row)} |")
    return "\n".join(lines)


def sections(group: str) -> str:
    """Return a section for each class of a group, in the order of the yaml."""
    return "\n\n".join(
        f"### {kind.__name__}\n\n{prose(kind)}" for kind in _each(m.kind for m in methods(group))
    )


def rebuilt(page: str) -> str:
    """Return the page with everything between its marks written anew."""
    made = {
        "defenses": defense_table(), "attacks": attack_table(),
        "defenses one by one": sections("strategy"), "attacks one by one": sections("attack"),
    }  # fmt: skip
    return filled(page, made)


def _each(kinds: Iterator[type[Any]]) -> list[type[Any]]:
    return list(dict.fromkeys(kinds))


def _overrides(kind: type[Any], hook: str) -> bool:
    return getattr(kind, hook) is not getattr(Attack, hook)


def _either(words: Iterable[str]) -> str:
    """Return a pattern of one of some terms, wherever a line of the docstring ends."""
    return "|".join(word.replace(" ", r"\s+") for word in words)


def _anchor(kind: type[Any]) -> str:
    return kind.__name__.lower()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(rebuilt(PAGE.read_text()))
