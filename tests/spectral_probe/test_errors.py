"""One family of errors: what they are besides, and the exit code that scripts rely on."""

from __future__ import annotations

import pytest

from spectral_probe import errors


@pytest.mark.parametrize(
    ("error", "builtin", "exit_code"),
    [
        (errors.SpectralProbeError, Exception, 1),
        (errors.ConfigError, ValueError, 2),
        (errors.ShapeError, errors.ConfigError, 2),
        (errors.DataError, ValueError, 3),
        (errors.ModelError, RuntimeError, 4),
        (errors.NonFiniteStateError, errors.ModelError, 4),
        (errors.NonFiniteStateError, ArithmeticError, 4),
        (errors.MissingDependencyError, ImportError, 5),
        (errors.ResourceError, OSError, 6),
    ],
)
def test_every_error_is_of_the_family_refines_a_builtin_and_has_its_exit_code(error, builtin, exit_code):
    assert issubclass(error, errors.SpectralProbeError)
    assert issubclass(error, builtin)
    assert error.exit_code == exit_code
    assert str(error("what failed")) == "what failed"


def test_the_nearest_known_name_is_suggested_and_nothing_far_away():
    assert errors.did_you_mean("lastfn", ["demo", "lastfm"]) == " Did you mean 'lastfm'?"
    assert errors.did_you_mean("netflix", ["demo", "lastfm"]) == ""
    assert errors.did_you_mean("x", []) == ""


def test_a_list_of_a_million_names_is_short():
    text = errors.listed(f"c{i}" for i in range(10**6))
    assert text.startswith("['c0', 'c1'")
    assert text.endswith("'c19'] and 999980 more")
    assert errors.listed(["a", "b"]) == "['a', 'b']"
    assert len(errors.listed(["x" * 10**6])) < 100
