"""The terms of the program, one paragraph each: the only text for ``explain``, docs/glossary.md and the page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING

import yaml

from spectral_probe.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Term:
    """One entry of the glossary.

    Attributes
    ----------
    name : str
        As the program prints it: ``taste``, ``swap null``, ``popularity-match-poor``.
    kind : str
        ``measure``, ``verdict``, ``method``, ``null``, ``control``, ``caveat`` or ``ranking``.
    heading : str
        Title of the section that it stands in.
    short : str
        What it is in a sentence or two that stand alone.
    more : str
        The rest of its paragraph.
    aliases : tuple of str
        Other ways to write it.
    see : tuple of str
        Names of terms that help to understand it.
    """

    name: str
    kind: str
    heading: str
    short: str
    more: str
    aliases: tuple[str, ...] = ()
    see: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The whole paragraph."""
        return f"{self.short} {self.more}"


def glossary() -> dict[str, Term]:
    """Return ``{name: term}`` of every term, section by section."""
    return dict(_terms())


@cache
def _terms() -> Mapping[str, Term]:
    content = files("spectral_probe.report").joinpath("glossary.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    terms = {}
    for section in yaml.load(content, Loader=loader):
        for entry in section["terms"]:
            terms[entry["term"]] = Term(
                name=entry["term"],
                kind=section["kind"],
                heading=section["heading"],
                short=entry["short"],
                more=entry["more"],
                aliases=tuple(entry.get("aliases", ())),
                see=tuple(entry.get("see", ())),
            )
    return MappingProxyType(terms)


def find_term(name: str) -> Term:
    """Return a term by its name or another way to write it, whatever the case; ``_`` and ``-`` count as a space.

    Raises
    ------
    ConfigError
        If there is no such term.
    """
    known = {_plain(key): term for term in glossary().values() for key in (*term.aliases, term.name)}
    term = known.get(_plain(name))
    if term is None:
        raise ConfigError(
            f"The glossary has no term {name!r}.{did_you_mean(_plain(name), known)} `spectral-probe explain` lists all."
        )
    return term


def terms_of(kind: str) -> dict[str, str]:
    """Return ``{name: short text}`` of all terms of a kind."""
    return {name: term.short for name, term in glossary().items() if term.kind == kind}


def explanations() -> dict[str, str]:
    """Return ``{name or alias: paragraph}`` of all terms."""
    return {name: term.text for term in glossary().values() for name in (*term.aliases, term.name)}


def glossary_page() -> str:
    """Return docs/glossary.md."""
    lines = [
        "# Glossary",
        "",
        "The terms that the commands, the report and these documents use. `spectral-probe explain TERM` prints a",
        "paragraph of this page in a terminal. `python -m benchmarks.pages.glossary` writes this page from",
        "`spectral_probe/report/glossary.yaml`.",
    ]
    heading = ""
    for term in glossary().values():
        if term.heading != heading:
            heading = term.heading
            lines += ["", f"## {heading}"]
        see = ", ".join(f"[{name}](#{anchor(name)})" for name in term.see)
        lines += ["", f"### {term.name}", "", *([f"Also: {', '.join(term.aliases)}.", ""] if term.aliases else [])]
        lines.append(f"{term.text} See {see}." if see else term.text)
    return "\n".join(lines) + "\n"


def anchor(name: str) -> str:
    """Return the anchor that the heading of a term has on docs/glossary.md."""
    return "".join(letter for letter in name.lower() if letter.isalnum() or letter in "- ").replace(" ", "-")


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
