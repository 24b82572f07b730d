"""A self-contained ``report.html``: the verdict in words, figures, controls, users, protocol, caveats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from spectral_probe.comparison.comparison import ProfileComparison, name_of, with_distinct_names
from spectral_probe.profiles.bootstrap import Interval
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import select_curve, tau_of
from spectral_probe.report.columns import Data
from spectral_probe.report.explore import explore_panels
from spectral_probe.report.glossary import explanations
from spectral_probe.report.origin import Origin, settings_of
from spectral_probe.report.page import (
    MOST_BYTES,
    Command,
    Files,
    Page,
    Panel,
    Picture,
    Section,
    Table,
    Verdicts,
    Words,
    render,
)
from spectral_probe.report.user_charts import MOST_SHOWN
from spectral_probe.report.vega import has_charts
from spectral_probe.report.words import (
    CHANGE_SIGNS,
    CONTROLS_IN_WORDS,
    NOT_AVAILABLE,
    QUANTITIES_IN_WORDS,
    SIGNS,
    caveat_in_words,
    change_mark,
    changes_in_words,
    mark_of,
    nulls_in_words,
    paired_in_words,
    retention_in_words,
    users_in_words,
    verdict_in_words,
)
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.storage.atomic import write_text

#: Figures of the page in their order; the caption of each lies beside it.
FIGURES = {
    "comparison": "the figure of the comparison",
    "decay": "taste and popularity carried, over depth",
    "excess": "the whole excess over each null",
    "foreseen": "what is foreseen of the next item",
    "published": "the published quantity",
    "heatmap": "the spectrum by layer",
}
N_USERS_SHOWN = 5
#: Users and controls in the data of the charts; the next is tried where a page is too large.
SIZES = ((MOST_SHOWN, True), (MOST_SHOWN // 2, True), (MOST_SHOWN // 4, True), (MOST_SHOWN // 8, False))
#: What lies beside the page, in the order it is listed.
FILES = {
    "bands.csv": "every curve with its intervals, of the model and its controls",
    "per_user.csv.gz": "every user at every layer",
    "published.csv.gz": "the published share of every user",
    "summary.json": "verdicts, numbers and protocol",
    "comparison.json": "every change with its interval",
    **{
        f"figures/{name}.{ending}": f"{words}{more}"
        for name, words in FIGURES.items()
        for ending, more in (("pdf", ""), ("csv", ": its numbers"), ("tex", ": a table for LaTeX"))
    },
}
USERS_HEAD = ("user", "measured nodes", "excess at the input", "excess at the last block")
LEGEND = (
    "A user's items form a graph: two items are near if many other users have both. Carried is how well the states fit "
    "the graph of the items they read, foreseen the graph of the items they predict, beyond what the states of other "
    "users fit it. Popularity is the part that a graph of other items of the same popularity gives as well; the lag "
    "profile says only how alike near and far positions are; taste is the rest: which items go together beyond their "
    "popularity. All are shares of the energy of the states. Retention is the carried excess at a layer divided by "
    "that at the input."
)


def write_report(
    folder: Path,
    profiles: Sequence[DecayProfile],
    versions: Mapping[str, str] | None = None,
    comparisons: Sequence[ProfileComparison] = (),
    *,
    runs: Sequence[AnalysisRun] = (),
    origins: Sequence[Origin | None] = (),
    command: str = "",
    terms: Mapping[str, str] | None = None,
) -> Path:
    """Write ``report.html`` into the folder with the ``figures`` of these profiles; return its path.

    Parameters
    ----------
    folder : Path
    profiles : sequence of DecayProfile
    versions : mapping, optional
        Of the packages that made the result.
    comparisons : sequence of ProfileComparison
    runs : sequence of AnalysisRun
        Of the profiles; histories of users and saved spectra are read there.
    origins : sequence of Origin or None
        How each profile was made.
    command : str
        What makes a comparison again.
    terms : mapping, optional
        Explanations of terms, shown where the term stands; those of the glossary when left out.
    """
    profiles = with_distinct_names(profiles)
    origins = [*origins, *[None] * (len(profiles) - len(origins))]
    before, after = _first_sections(profiles, comparisons), []
    for profile, origin in zip(profiles, origins, strict=True):
        after.append(_profile_section(profile, origin))
    after += _last_sections(folder, [origin.command for origin in origins if origin], command, versions)
    title = ", ".join(map(name_of, profiles))
    dataset = str(profiles[0].table["dataset"].iloc[0])
    titles = f"Spectral Probe: {title} on {dataset}", f"What do the layers carry? {title} on {dataset}"
    for n_shown, has_controls in SIZES:
        panels: list[Panel] = []
        data: Data = {}
        if has_charts():
            names = [name_of(profile) for profile in profiles]
            panels, data = explore_panels(profiles, names, runs, n_shown=n_shown, has_controls=has_controls)
        explore = Section("", [*panels, *_pictures(folder)])
        comparison_sections = [_changes_section(comparison) for comparison in comparisons]
        page = Page(
            *titles, [*before, explore, *comparison_sections, *after], data, explanations() if terms is None else terms
        )
        text = render(page)
        if len(text.encode()) <= MOST_BYTES:
            break
    write_text(folder / "report.html", text.rstrip("\n"))
    return folder / "report.html"


def _first_sections(profiles: Sequence[DecayProfile], comparisons: Sequence[ProfileComparison]) -> list[Section]:
    is_one = len(profiles) == 1
    cards = [_verdicts(profile, None if is_one else number) for number, profile in enumerate(profiles)]
    rows = [*SIGNS, *(CHANGE_SIGNS if comparisons else ())]
    signs = Table("What the signs mean", ("sign", "meaning"), rows, is_open=False)
    return [Section("", [*cards, *_of_comparisons(comparisons), Words(LEGEND), signs])]


def _last_sections(
    folder: Path, commands: Sequence[str], command: str, versions: Mapping[str, str] | None
) -> list[Section]:
    """Return the files beside the page, the commands, and the versions."""
    sections = []
    files = [(name, words) for name, words in FILES.items() if (folder / name).is_file()]
    if files:
        sections.append(Section("Files beside this page", [Files(files)]))
    if lines := [line for line in (command, *commands) if line]:
        sections.append(Section("Make it again", [Command(lines)]))
    if versions:
        text = ", ".join(f"{name} {number}" for name, number in versions.items())
        sections.append(Section("Versions", [Words(text)]))
    return sections


def _verdicts(profile: DecayProfile, color: int | None) -> Verdicts:
    sentences = " ".join([verdict_in_words(profile), *paired_in_words(profile), changes_in_words(profile)]).strip()
    marks = [mark_of(name, verdict) for name, verdict in profile.verdicts.items()]
    return Verdicts(name_of(profile), marks, sentences, color=color)


def _of_comparisons(comparisons: Sequence[ProfileComparison]) -> list[Any]:
    blocks: list[Any] = []
    for comparison in comparisons:
        title = f"{comparison.other} against {comparison.base}"
        blocks.append(Verdicts(title, [change_mark(comparison.label)], comparison.words, "comparison"))
        blocks += [Words(sentence, lead=lead) for lead, sentence in comparison.published_words.items()]
    return blocks


def _pictures(folder: Path) -> list[Picture]:
    """Return the figures of a run with the captions that lie beside them."""
    pictures = []
    for name in FIGURES:
        picture, caption = folder / "figures" / f"{name}.png", folder / "figures" / f"{name}.txt"
        if picture.is_file() and caption.is_file():
            words = " ".join(caption.read_text(encoding="utf-8").split())
            pictures.append(Picture(f"Figure {picture.name}", words, picture.read_bytes()))
    return pictures


def _changes_section(comparison: ProfileComparison) -> Section:
    rows = [
        (
            QUANTITIES_IN_WORDS[change.quantity],
            change.site,
            *(_interval_text(getattr(change, name)) for name in ("base", "other", "difference")),
        )
        for change in comparison.every()
    ]
    head = ("quantity", "where", comparison.base, comparison.other, "change")
    title = f"{comparison.other} against {comparison.base}"
    return Section(title, [Table("", head, rows, name=title)])


def _profile_section(profile: DecayProfile, origin: Origin | None) -> Section:
    """Return the section of one profile; every number is formatted text."""
    caveats = [Words(caveat_in_words(profile, code), "caveat", code=code) for code in profile.caveats]
    controls = [
        (
            name,
            CONTROLS_IN_WORDS.get(name, ""),
            "; ".join(f"{c} {retention_in_words(control, c)}" for c in control.retention),
            "; ".join(f"{c}: {v.label}" for c, v in control.verdicts.items() if v.label != "none"),
        )
        for name, control in profile.controls.items()
    ]
    head = ("control", "what it shows", "retention at the last block", "verdict it would give")
    users = _extreme_users(profile)
    of = "taste" if "taste" in profile.per_user else "whole excess"
    title = f"Users with the largest and the smallest {of} at the input"
    blocks: list[Any] = [
        *caveats,
        *_curves(profile),
        Words(f"{nulls_in_words(profile)} {users_in_words(profile)}"),
        Table("Controls", head, controls),
    ]
    if users:
        blocks.append(Table(title, USERS_HEAD, users, is_open=False))
    return Section(name_of(profile), [*blocks, settings_of(profile.protocol, origin)])


def _curves(profile: DecayProfile) -> list[Table]:
    """Return the curves of a profile as tables: title and one row of texts per layer."""
    curves: list[Table] = []
    layers: list[tuple[str, ...]] = []
    head: tuple[str, ...]
    if "taste" in set(profile.table["component"]):
        for component in ("taste", "popularity"):
            rows = profile.curve(component).to_dict("records")
            if not profile.has_measurable_input(component):
                rows = [{**row, "retention": math.nan} for row in rows]
            layers = [(_text(row, "layer_name"), _span(row, "excess", 4), _span(row, "retention", 2)) for row in rows]
            head = ("layer", "excess", "retention")
            curves.append(Table(f"{component} carried", head, layers, is_open=not curves))
        foreseen = profile.foreseen
        if foreseen is not None and len(foreseen):
            rows = foreseen[foreseen["component"] == "taste"].to_dict("records")
            is_measurable = profile.has_measurable_input("taste")
            rows = [
                {
                    "layer_name": row["layer_name"],
                    "value": row["value"] if is_measurable else math.nan,
                    "value_low": row["low"],
                    "value_high": row["high"],
                }
                for row in rows
            ]
            layers = [(_text(row, "layer_name"), _span(row, "value", 3)) for row in rows]
            head = ("layer", "in units of the taste carried at the input")
            curves.append(Table("taste foreseen", head, layers, is_open=False))
    whole = select_curve(profile.table, null=profile.null)
    layers = [
        (_text(r, "layer_name"), _span(r, "share", 4), _text(r, "null_share", 4), _span(r, "excess", 4))
        for r in whole.to_dict("records")
    ]
    null = str(whole["null"].iloc[0])
    head = ("layer", "low-pass share", f"{null} null", "excess")
    curves.append(Table(f"whole: low-pass share of the energy ({tau_of(whole)})", head, layers, is_open=not curves))
    return curves


def _text(row: Mapping[Any, Any], name: str, digits: int = 0) -> str:
    value = row[name]
    return value if isinstance(value, str) else "" if pd.isna(value) else f"{value:.{digits}f}"


def _span(row: Mapping[Any, Any], name: str, digits: int) -> str:
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    return NOT_AVAILABLE if pd.isna(value) else f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _interval_text(interval: Interval) -> str:
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _extreme_users(profile: DecayProfile) -> list[tuple[str, ...]]:
    """Return the users with the largest and the smallest excess at the input, with their excess at the last block."""
    table = profile.per_user
    column = "taste" if "taste" in table else f"excess_{profile.null}"
    if profile.null is None or column not in table or not profile.retention_layer:
        return []
    table = table[table["nodes"] == table["nodes"].iloc[0]]
    if "measured" not in table:  # saved by the first version
        table = table.assign(measured=table["n_targets"])
    key = "user_id" if "user_id" in table else "sequence"
    wide = table.pivot(index=[key, "measured"], columns="layer_name", values=column).reset_index()
    first = str(profile.per_user["layer_name"].iloc[0])
    ranked = wide.dropna(subset=[first]).sort_values(first, ascending=False, kind="stable")
    if len(ranked) < 2 * N_USERS_SHOWN:
        rows = ranked
    else:
        rows = pd.concat([ranked.head(N_USERS_SHOWN), ranked.tail(N_USERS_SHOWN)])
    return [
        (str(row[key]), str(row["measured"]), f"{row[first]:+.4f}", f"{row[profile.retention_layer]:+.4f}")
        for row in rows.to_dict("records")
    ]
