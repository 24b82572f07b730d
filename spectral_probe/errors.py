"""The one family of errors that a user can act on, each with the exit code of the command line.

Every message names the rule that was broken, the value seen, and the next step. Each class also
subclasses the builtin it refines, so that library code can be caught with ordinary ``except`` clauses.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from difflib import get_close_matches

#: Characters of a name that a message shows.
_LONGEST = 80
#: What PyTorch and C++ say when an allocation fails, whatever the type of their error.
_OUT_OF_MEMORY = ("bad_alloc", "can't allocate memory", "out of memory", "cannot allocate memory")
#: White space between two sentences.
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z`])")


class SpectralProbeError(Exception):
    """Something that the user, not the maintainer, can put right."""

    exit_code = 1


class ConfigError(SpectralProbeError, ValueError):
    """An option, argument or configuration value that is not allowed."""

    exit_code = 2


class ShapeError(ConfigError):
    """Arrays whose shapes do not fit together."""


class DataError(SpectralProbeError, ValueError):
    """Data that is missing, malformed, or empty after filtering."""

    exit_code = 3


class SmallCatalogueError(DataError):
    """Fewer items outside a user's history than negatives are to be drawn."""


class ModelError(SpectralProbeError, RuntimeError):
    """A model that is unavailable or cannot be probed."""

    exit_code = 4


class NonFiniteStateError(ModelError, ArithmeticError):
    """A NaN or an infinity in a hidden state."""


class MissingDependencyError(SpectralProbeError, ImportError):
    """An optional package that the request needs and that is not installed."""

    exit_code = 5


class ResourceError(SpectralProbeError, OSError):
    """Out of memory, or out of disk space."""

    exit_code = 6


def user_error(error: BaseException) -> SpectralProbeError | None:
    """Return an error as one that a user can act on: of this family, of memory, or of a file; None for a bug."""
    if isinstance(error, SpectralProbeError):
        return error
    first_line = str(error).strip().partition("\n")[0][:200] or "no details"
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY):
        return ResourceError(
            f"Out of memory ({type(error).__name__}: {first_line}). Take a smaller batch, model or data set, fewer "
            "users, or a machine with more memory; --resume goes on from what is saved."
        )
    if "I/O error" in str(error) and type(error).__name__ == "SafetensorError":  # no OSError, although a disk is full
        return ResourceError(f"A file of weights failed: {first_line}. Free some space; what is saved stays.")
    if isinstance(error, OSError) and error.errno is not None:
        named = f" {error.filename}" if error.filename else ""
        if error.errno == errno.ENAMETOOLONG:
            return ConfigError(f"The name{named} is too long. Choose a shorter one.")
        return ResourceError(
            f"The system refused a file{named}: {error.strerror}. Check its path, its permissions and the free space; "
            "what is saved stays."
        )
    return None


def what_failed(error: Exception) -> str:
    """Return the first sentence of an error, and what was perhaps meant; the caller gives the next step."""
    first, *others = _SENTENCE_END.split(str(error))
    return " ".join([first, *(sentence for sentence in others if sentence.startswith("Did you mean "))])


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known name, else an empty string."""
    close = get_close_matches(str(value), list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def listed(names: Iterable[object], *, n_shown: int = 20) -> str:
    """Return names for a message, of many only the first ones and how many more there are; long ones are cut."""
    texts = [text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…" for text in map(str, names)]
    more = f" and {len(texts) - n_shown} more" if len(texts) > n_shown else ""
    return f"{texts[:n_shown]}{more}"


def check_choice(what: str, value: object, known: Iterable[str], advice: str = "") -> None:
    """Refuse a value that is none of the known names, with the closest one; ``advice`` is a sentence after that.

    Raises
    ------
    ConfigError
    """
    names = list(known)
    if not isinstance(value, str) or value not in names:
        raise ConfigError(
            f"{what} must be one of {', '.join(names)}; got {value!r}.{did_you_mean(str(value), names)}"
            f"{advice and f' {advice}'}"
        )


def check_known(names: Iterable[object], known: Iterable[str], what: str) -> None:
    """Refuse the first name that ``what`` does not have, with a suggestion.

    Raises
    ------
    ConfigError
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{what} has no setting {name!r}; it has {', '.join(known)}.{did_you_mean(str(name), known)} Correct "
                "the name, or leave it out."
            )
