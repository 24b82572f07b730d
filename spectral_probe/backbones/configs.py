"""What a configuration alone tells of a model: whether it is a decoder of this kind, its context, its direction."""

from __future__ import annotations

import inspect
from typing import Any, NoReturn

from spectral_probe.errors import ModelError

#: Next step for a model whose layers cannot be verified.
OWN_CLASS = (
    "Wrap the model in a class of your own with name, is_causal, layers() and forward_sequences() "
    "(see spectral_probe.backbones.LayeredModel)."
)
#: ``config.model_type`` → why its forward pass cannot be used, for families that must not even be run once.
UNUSABLE: dict[str, str] = {
    "rwkv": "a forward pass divides the weights of later blocks in place, and halves the state between blocks",
}


def runs_causally(config: Any) -> bool:
    """Tell from a configuration whether a model's states depend only on their own and earlier positions."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    text = text_config(config)
    if str(getattr(text, "model_type", "")) in MODEL_FOR_MASKED_LM_MAPPING_NAMES:  # an encoder
        return bool(getattr(text, "is_decoder", False))
    # A decoder can be configured to attend in both directions.
    return bool(getattr(text, "is_causal", True)) and not getattr(text, "use_bidirectional_attention", False)


def text_config(config: Any) -> Any:
    """Return the part of a configuration that describes the language model; all of it if it has one part."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def n_positions(config: Any) -> int | None:
    """Return the longest sequence that a configuration allows; None without a limit."""
    limit = getattr(text_config(config), "max_position_embeddings", None)
    return None if limit is None else int(limit)


def without_pooler(config: Any) -> dict[str, bool]:
    """Return the option of ``AutoModel`` that leaves out an encoder's pooler, which the states do not depend on.

    A checkpoint may lack the pooler; it would be initialised at random, and the hash of the weights with it.
    """
    from transformers import MODEL_MAPPING

    if type(config) not in MODEL_MAPPING:
        return {}
    model: Any = MODEL_MAPPING[type(config)]
    has_option = not isinstance(model, tuple) and "add_pooling_layer" in inspect.signature(model.__init__).parameters
    return {"add_pooling_layer": False} if has_option else {}


def check_config(config: Any, family: str) -> None:
    """Refuse, before any weights are read, a configuration whose model cannot be a decoder of this kind.

    Raises
    ------
    ModelError
        If it describes an encoder with a decoder, a model that reads no tokens, or a family in :data:`UNUSABLE`.
    """
    if getattr(config, "is_encoder_decoder", False):
        refuse(family, "the model has one stack of blocks", "is_encoder_decoder=True: an encoder and a decoder")
    if not getattr(text_config(config), "vocab_size", 0):
        refuse(family, "the model reads tokens", "a configuration without vocab_size")
    if family in UNUSABLE:
        refuse(family, "a forward pass changes no weight and no state between blocks", UNUSABLE[family])


def refusal(family: str, check: str, seen: str, step: str = OWN_CLASS) -> ModelError:
    """Return the error for a model whose layers fail a check: the check, the value seen, the next step."""
    return ModelError(
        f"The layers of model_type {family!r} could not be verified. Check: {check}; seen: {seen}. {step}"
    )


def refuse(family: str, check: str, seen: str, step: str = OWN_CLASS) -> NoReturn:
    """Raise :func:`refusal`."""
    raise refusal(family, check, seen, step)
