"""Which column of a table holds users, items, times and titles: by name, or by the usual names for each."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from spectral_probe.errors import ConfigError, DataError, did_you_mean

ROLES = ("user", "item", "time", "title")
#: Usual names, without case, spaces, ``_`` and ``-``. The first of a role is taken even if others are there, too.
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
_PREFERRED = (("parentasin", "asin"),)


def plain_name(column: object) -> str:
    """Return the name of a column in lower case, without spaces, ``_`` and ``-``."""
    return "".join(c for c in str(column).strip().strip("\ufeff").lower() if c not in " _-")


def parse_columns(text: str) -> dict[str, str]:
    """Return the columns named in ``user=…,item=…,time=…,title=…`` by role.

    A part that contains a comma is put in double quotes.

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
            raise ConfigError(
                f"Columns are named as user=…,item=…,time=…,title=…, each once; got {part!r}."
                f"{did_you_mean(role, ROLES)} Write for example --columns user=userId,item=movieId,time=ts."
            )
        named[role] = column.strip()
    if not named:
        raise ConfigError(f"Columns are named as user=…,item=…,time=…,title=…; got {text!r}. Name at least one.")
    if len(set(named.values())) != len(named):
        raise ConfigError(f"Every column has one role; got {text!r}. Name each column once.")
    return named


def format_columns(named: Mapping[str, str]) -> str:
    """Return columns by role as the text that :func:`parse_columns` reads."""
    parts = [f"{role}={named[role]}" for role in ROLES if role in named]
    return ",".join(f'"{part.replace(chr(34), chr(34) * 2)}"' if set(part) & set(',"') else part for part in parts)


@dataclass(frozen=True)
class Columns:
    """The columns of a table of interactions.

    Attributes
    ----------
    user, item : str
    time, title : str or None
        None where the table has none.
    named : frozenset of str
        Roles whose column was named by the caller.
    """

    user: str
    item: str
    time: str | None = None
    title: str | None = None
    named: frozenset[str] = field(default_factory=frozenset)

    def notes(self) -> list[str]:
        """Return what the reader of a result should know: columns that were recognised, and a missing time."""
        usual = {"user": "user_id", "item": "item_id", "time": "timestamp", "title": "title"}
        taken = {role: column for role in ROLES if (column := getattr(self, role)) is not None}
        differing = [f"{role} {column!r}" for role, column in taken.items() if column != usual[role]]
        is_told = all(role in self.named for role, column in taken.items() if column != usual[role])
        notes = [] if is_told or not differing else [f"columns taken by their names: {', '.join(differing)}."]
        if self.time is None:
            notes.append("no column of times: the order of the rows is taken as the order of the events.")
        return notes


def find_columns(header: Sequence[str], named: Mapping[str, str] | None = None, *, where: str) -> Columns:
    """Return which columns of a table hold users, items, times and titles.

    Parameters
    ----------
    header : sequence of str
    named : mapping, optional
        Columns by role that the caller named; the others are found by :data:`USUAL_NAMES`.
    where : str
        The table, for errors.

    Raises
    ------
    DataError
        If a named column is missing, users or items have no column, or two columns could be meant.
    """
    named = dict(named or {})
    for role, column in named.items():
        if list(header).count(column) != 1:
            problem = "no column" if column not in header else "more than one column"
            raise DataError(
                f"{where} has {problem} {column!r} in its header, line 1; its columns are {listing(header)}."
                f"{did_you_mean(column, header)} {how_to_name(role)}"
            )
    taken = dict(named)
    for role in ROLES:
        if role not in taken:
            column_of_role = _usual_column(header, role, set(taken.values()), where)
            if column_of_role is not None:
                taken[role] = column_of_role
    for role in ("user", "item"):
        if role not in taken:
            expected = {"user": "user_id", "item": "item_id"}[role]
            raise DataError(
                f"{where} has no column {expected!r} in its header, line 1, and none of a usual name for {role}s; its "
                f"columns are {listing(header)}.{did_you_mean(expected, header)} {how_to_name(role)}"
            )
    return Columns(taken["user"], taken["item"], taken.get("time"), taken.get("title"), frozenset(named))


def how_to_name(role: str) -> str:
    """Return the next step where the column of a role is missing."""
    return f"Name it with --columns {role}=COLUMN (in Python: the data set 'table:FILE,{role}=COLUMN'), or rename it."


def listing(columns: Sequence[str]) -> str:
    """Return the names of columns for an error, cut where they are many or long."""
    shown = [column if len(column) <= 40 else f"{column[:37]}…" for column in map(str, columns[:20])]
    return f"{shown}" + (f" and {len(columns) - 20} more" if len(columns) > 20 else "")


def is_item_name(column: str) -> bool:
    """Return whether a column of this name holds the ids of items: a usual name, or one that ends in ``id``."""
    name = plain_name(column)
    text = column.strip()
    return name in ("id", *USUAL_NAMES["item"]) or text.endswith(("_id", "Id", "ID", "-id", " id"))


def _usual_column(header: Sequence[str], role: str, taken: set[str], where: str) -> str | None:
    """Return the column with a usual name for a role; None without one."""
    usual = USUAL_NAMES[role]
    exact = {"user": "user_id", "item": "item_id", "time": "timestamp", "title": "title"}[role]
    if list(header).count(exact) == 1 and exact not in taken:
        return exact
    candidates = [column for column in header if plain_name(column) in usual and column not in taken]
    first = [column for column in candidates if plain_name(column) == usual[0]]
    candidates = first or candidates
    names = {plain_name(column) for column in candidates}
    for better, other in _PREFERRED:
        if better in names:
            candidates = [column for column in candidates if plain_name(column) != other]
    if len(candidates) > 1 and role in ("user", "item"):
        raise DataError(
            f"{where} has {len(candidates)} columns that could hold the {role}s: {listing(candidates)}. "
            f"{how_to_name(role)}"
        )
    if len(candidates) > 1:
        ordered = sorted(candidates, key=lambda column: usual.index(plain_name(column)))
        if header.count(ordered[0]) > 1 or plain_name(ordered[0]) == plain_name(ordered[1]):
            raise DataError(
                f"{where} has {len(candidates)} columns that could hold the {role}s: {listing(candidates)}. "
                f"{how_to_name(role)}"
            )
        return ordered[0]
    return candidates[0] if candidates else None
