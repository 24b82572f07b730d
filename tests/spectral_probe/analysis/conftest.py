"""A cache of their own for the analyses of a test run: nothing is read from or written to the user's."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
