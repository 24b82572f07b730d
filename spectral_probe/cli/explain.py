"""``spectral-probe explain``: what a term of the output means, in one paragraph."""

from __future__ import annotations

from typing import Annotated

import typer

from spectral_probe.cli.completion import complete_terms
from spectral_probe.cli.flags import examples
from spectral_probe.cli.json_output import AsJson, Fields, print_json
from spectral_probe.cli.terminal import say, say_wrapped

EXAMPLES = examples(
    "spectral-probe explain", "spectral-probe explain swap null", "spectral-probe explain popularity-match-poor"
)


def explain(
    term: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TERM",
            help="A word of the output: excess, swap null, a control, a caveat, …",
            autocompletion=complete_terms,
        ),
    ] = None,
    as_json: AsJson = False,
    fields: Fields = None,
) -> None:
    """Explain a term of the output in one paragraph; without a term, list all.

    The same text is in docs/glossary.md and on the page of a run.
    """
    from spectral_probe.report.glossary import find_term, glossary

    terms = [find_term(" ".join(term))] if term else list(glossary().values())
    if as_json or fields:
        rows = [
            {"term": t.name, "section": t.heading, "also": list(t.aliases), "text": t.text, "see": list(t.see)}
            for t in terms
        ]
        print_json(rows[0] if term else rows, fields)
        return
    if term:
        (found_term,) = terms
        also = f" (also: {', '.join(found_term.aliases)})" if found_term.aliases else ""
        say_wrapped(f"{found_term.name}{also}")
        say_wrapped(found_term.text)
        if found_term.see:
            say_wrapped(f"See also: {', '.join(found_term.see)}.")
        return
    heading = ""
    for entry in terms:
        if entry.heading != heading:
            say(f"{'' if not heading else chr(10)}{entry.heading}")
            heading = entry.heading
        say_wrapped(f"  {entry.name}: {entry.short}", indent="    ")
