"""Which column of a table holds users, items, times and titles: as named, or by the usual names of each."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Mapping, Sequence

from spectral_probe.errors import ConfigError, DataError, did_you_mean

#: What a column can hold, and its name in files of this package, which is taken before any other.
ROLES = {"user": "user_id", "item": "item_id", "time": "timestamp", "title": "title"}
#: Usual names, without case, spaces, ``_`` and ``-``; the first of a role is taken even if others are there, too.
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "user": (
        *("userid", "user", "uid", "userno", "username", "customerid", "customer", "customerno", "reviewerid"),
        *("reviewer", "memberid", "accountid", "visitorid", "profileid", "clientid", "personid", "viewerid"),
        *("listenerid", "buyerid", "readerid", "playerid", "sessionid", "steamid"),
    ),
    "item": (
        *("itemid", "item", "iid", "itemno", "movieid", "movie", "filmid", "productid", "product", "parentasin"),
        *("asin", "articleid", "trackid", "songid", "artistid", "albumid", "bookid", "isbn", "businessid", "gameid"),
        *("appid", "videoid", "newsid", "sku", "contentid", "recipeid", "animeid", "poiid", "venueid", "gmapid"),
        *("showid", "courseid", "hotelid", "restaurantid", "placeid", "adid", "jobid"),
    ),
    "time": (
        *("timestamp", "time", "ts", "datetime", "date", "unixreviewtime", "unixtime", "unixtimestamp"),
        *("timestampms", "eventtime", "eventtimestamp", "createdat", "ratingtimestamp", "reviewdate", "tdat"),
        *("interactiontime", "playedat", "watchedat", "purchasedate", "orderdate", "eventdate"),
    ),
    "title": (
        *("title", "itemtitle", "movietitle", "booktitle", "tracktitle", "songtitle", "producttitle", "itemname"),
        *("moviename", "productname", "artistname", "trackname", "songname", "gametitle", "gamename", "newstitle"),
    ),
}
#: Where both are there, the first is meant: it joins the variants of a product.
_PREFERRED = ("parentasin", "asin")


def plain_name(column: object) -> str:
    """Return the name of a column in lower case, without spaces, ``_`` and ``-``."""
    return "".join(c for c in str(column).strip().strip("\ufeff").lower() if c not in " _-")


#: A quote after the equals sign, as a shell takes it: the comma behind it is not protected.
_QUOTED_NAME = re.compile(r'=\s*"')


def parse_columns(text: str) -> dict[str, str]:
    """Return the columns named in ``user=…,item=…,time=…,title=…``, by role.

    A part that contains a comma is put in double quotes. A number is the position of a column, from 1, in a file
    without a header.

    Raises
    ------
    ConfigError
        If a part is not of this form, a role is unknown or named twice, or a column is named for two roles.
    """
    named: dict[str, str] = {}
    for part in next(csv.reader([text], skipinitialspace=True), []):
        role, equals, column = part.partition("=")
        role = role.strip()
        if not equals or not column.strip() or role not in ROLES or role in named:
            advice = f"{did_you_mean(role, ROLES)} Write for example --columns user=userId,item=movieId,time=ts."
            if _QUOTED_NAME.search(text):  # the quotes of a cell begin at its beginning
                advice = " A name with a comma is quoted together with its role: --columns '\"user=the, user\",item=b'."
            raise ConfigError(f"Columns are named as user=…,item=…,time=…,title=…, each once; got {part!r}.{advice}")
        named[role] = column.strip()
    if not named:
        raise ConfigError(f"Columns are named as user=…,item=…,time=…,title=…; got {text!r}. Name at least one.")
    if len(set(named.values())) != len(named):
        raise ConfigError(f"A column has one role; got {text!r}. Name a column once.")
    return named


def format_columns(named: Mapping[str, str]) -> str:
    """Return columns by role as the text that :func:`parse_columns` reads."""
    parts = [f"{role}={named[role]}" for role in ROLES if role in named]
    return ",".join(f'"{part.replace(chr(34), chr(34) * 2)}"' if set(part) & set(',"') else part for part in parts)


def find_columns(
    header: Sequence[str],
    named: Mapping[str, str] | None = None,
    *,
    where: str,
    roles: Collection[str] = tuple(ROLES),
    required: Collection[str] = ("user", "item"),
) -> dict[str, str]:
    """Return the column of each role that a table has.

    Parameters
    ----------
    header : sequence of str
    named : mapping, optional
        Columns by role that the caller named; the others are found by :data:`ROLES` and :data:`USUAL_NAMES`.
    where : str
        The table, for errors.
    roles : collection of str
        Roles to look for.
    required : collection of str
        Roles that the table must have.

    Raises
    ------
    DataError
        If a named or required column is missing, or two columns could be meant.
    """
    taken = dict(named or {})
    for role, column in taken.items():
        if list(header).count(column) != 1:
            problem = "no column" if column not in header else "more than one column"
            raise DataError(
                f"{where} has {problem} {column!r} in its header, line 1; its columns are {listing(header)}."
                f"{did_you_mean(column, header)} {how_to_name(role)}"
            )
    for role in roles:
        if role not in taken and (usual := _usual_column(header, role, set(taken.values()), where)) is not None:
            taken[role] = usual
    for role in required:
        if role not in taken:
            raise DataError(
                f"{where} has no column {ROLES[role]!r} in its header, line 1, and none of a usual name for a {role}; "
                f"its columns are {listing(header)}.{did_you_mean(ROLES[role], header)} {how_to_name(role)}"
            )
    return {role: taken[role] for role in ROLES if role in taken}


def notes_on_columns(taken: Mapping[str, str], named: Collection[str]) -> list[str]:
    """Return what the reader of a result should know: columns that were recognised, and that there are no times."""
    recognised = [f"{role} {column!r}" for role, column in taken.items() if column != ROLES[role] and role not in named]
    notes = [f"columns recognised: {', '.join(recognised)}."] if recognised else []
    if "time" not in taken:
        notes.append("no column of times: the order of the file is taken as the order of the events.")
    return notes


def how_to_name(role: str) -> str:
    """Return the next step where the column of a role is missing."""
    return f"Name it with --columns {role}=COLUMN (in Python: the data set 'table:FILE,{role}=COLUMN'), or rename it."


def listing(columns: Sequence[str]) -> str:
    """Return the names of columns for an error, cut where they are many or long."""
    shown = [column if len(column) <= 40 else f"{column[:37]}…" for column in map(str, columns[:20])]
    return f"{shown}" + (f" and {len(columns) - 20} more" if len(columns) > 20 else "")


def is_item_name(column: str) -> bool:
    """Return whether a column of this name holds the ids of items: a usual name, or one that ends in ``id(s)``."""
    text = column.strip()
    if text.lower().endswith("ids"):
        text, column = text[:-1], column.strip()[:-1]
    return plain_name(column) in ("id", *USUAL_NAMES["item"]) or text.endswith(("_id", "Id", "ID", "-id", " id"))


def _usual_column(header: Sequence[str], role: str, taken: set[str], where: str) -> str | None:
    """Return the column with a usual name for a role; None without one."""
    usual = USUAL_NAMES[role]
    candidates = [column for column in header if column == ROLES[role] and column not in taken]
    for accepted in (usual[:1], usual):
        candidates = candidates or [c for c in header if plain_name(c) in accepted and c not in taken]
    names = {plain_name(column) for column in candidates}
    if names >= set(_PREFERRED):
        candidates = [column for column in candidates if plain_name(column) != _PREFERRED[1]]
    if len(candidates) > 1 and role in ("time", "title") and len(names) == len(candidates):
        return min(candidates, key=lambda column: usual.index(plain_name(column)))
    if len(candidates) > 1 and len(set(candidates)) == 1:
        raise DataError(
            f"{where} has more than one column {candidates[0]!r} in its header, line 1; its columns are "
            f"{listing(header)}. Rename or drop one."
        )
    if len(candidates) > 1:
        raise DataError(
            f"{where} has more than one column for the {role}: {listing(candidates)}, line 1. {how_to_name(role)}"
        )
    return candidates[0] if candidates else None
