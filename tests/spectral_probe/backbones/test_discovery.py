"""Layers found by structure: every family against its own hidden states, and what must be refused."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from spectral_probe.backbones import HFDecoder, load_backbone, weights_fingerprint
from spectral_probe.backbones.configs import UNUSABLE
from spectral_probe.backbones.discovery import OVERRIDES, LayerPaths, discover
from spectral_probe.errors import ModelError
from tests.spectral_probe.tiny_models import CONFIGS, DECODERS, N_BLOCKS, WIDTH, n_hooks, tiny

#: Where each family keeps its layers, read from its code.
PATHS = {family: paths for family, (_, *paths) in DECODERS.items()} | {
    "bert": ["encoder.layer", None],
    "gpt2": ["h", "ln_f"],
    "gpt_neox": ["layers", "final_layer_norm"],
    **{family: ["layers", "norm"] for family in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2")},
}
#: Returned states leave out the input of the first block.
WITHOUT_INPUT = ("mamba", "mamba2", "falcon_mamba")
N_POSITIONS = 7


def with_head(family: str, folder: Any) -> Any:
    """Save a random model with its head, as checkpoints are published; return its body."""
    config, *_ = DECODERS.get(family) or (CONFIGS[family],)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    return model.base_model.eval()


def recorded(decoder: HFDecoder, vectors: torch.Tensor, lengths: torch.Tensor) -> tuple[list[torch.Tensor], Any]:
    """Return the state of every layer, and the output, of one forward pass."""
    states: dict[str, torch.Tensor] = {}
    handles = []
    for name, kind, module in decoder.layers():
        if kind == "embed":

            def before(module, args, kwargs, name=name):
                states[name] = args[0] if args else kwargs["hidden_states"]

            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        else:

            def after(module, args, output, name=name):
                states[name] = output[0] if isinstance(output, (tuple, list)) else output

            handles.append(module.register_forward_hook(after))
    output = decoder.forward_sequences(vectors, lengths)
    for handle in handles:
        handle.remove()
    assert list(states) == [name for name, _, _ in decoder.layers()]
    return list(states.values()), output


@pytest.mark.parametrize("family", sorted(PATHS))
def test_every_family_is_read_and_its_layers_are_its_hidden_states(family, tmp_path):
    body = with_head(family, tmp_path)
    decoder = load_backbone(str(tmp_path))
    blocks, final_norm = PATHS[family]
    modules = {id(module): path for path, module in decoder.model.named_modules()}
    assert [modules[id(module)] for _, _, module in decoder.layers()] == [
        f"{blocks}.0",
        *(f"{blocks}.{i}" for i in range(N_BLOCKS)),
        *([final_norm] if final_norm else []),
    ]
    assert (decoder.family, decoder.width, decoder.n_blocks, decoder.is_causal) == (family, WIDTH, N_BLOCKS, True)
    assert bool(decoder.note) == (final_norm is None)
    assert n_hooks(decoder) == 0

    vectors = torch.randn(2, N_POSITIONS, WIDTH, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([N_POSITIONS, N_POSITIONS - 3])
    states, last = recorded(decoder, vectors, lengths)
    mask = (torch.arange(N_POSITIONS) < lengths[:, None]).long()
    with torch.no_grad():
        reference = body(inputs_embeds=vectors, attention_mask=mask, use_cache=False, output_hidden_states=True)
    n = N_BLOCKS
    for row, length in enumerate(lengths.tolist()):
        hidden = [state[row, :length] for state in reference.hidden_states]
        raw = [state[row, :length] for state in states[: n + 1]]
        for mine, theirs in zip(raw[1:] if family in WITHOUT_INPUT else raw[:n], hidden[:n], strict=True):
            torch.testing.assert_close(mine, theirs)
        torch.testing.assert_close(hidden[n], last[row, :length])
        if final_norm:
            torch.testing.assert_close(states[-1][row, :length], last[row, :length])
            assert not torch.allclose(raw[n], hidden[n], atol=1e-3)
    # Padding is not read.
    alone = decoder.forward_sequences(vectors[1:, : N_POSITIONS - 3], lengths[1:])
    torch.testing.assert_close(alone[0], last[1, : N_POSITIONS - 3], rtol=1e-4, atol=1e-4)


def test_the_families_that_people_ask_for_are_among_them():
    asked = {"llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "olmo", "olmo2"}
    asked |= {"opt", "bloom", "falcon", "gpt2", "gpt_neox", "gptj", "stablelm", "qwen2_moe", "qwen3_moe", "mixtral"}
    asked |= {"granite", "cohere", "smollm3", "starcoder2", "mpt", "codegen", "mamba", "bert"}
    assert asked <= set(PATHS)
    assert not set(DECODERS) & set(CONFIGS)


# --- overrides -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", sorted(OVERRIDES))
def test_a_row_of_the_overrides_is_needed(family, monkeypatch):
    assert tuple(OVERRIDES[family]) == tuple(PATHS[family])
    model = AutoModel.from_config(AutoConfig.for_model(family, **DECODERS[family][0]))
    monkeypatch.delitem(OVERRIDES, family)
    with pytest.raises(ModelError, match=r"Check: the final norm runs once in a forward pass; seen: 'norm' ran 2"):
        discover(model)


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (LayerPaths("blocks", "norm"), r"Check: the override \('blocks', 'norm'\) names modules of the model"),
        (LayerPaths("layers", "ln_f"), r"Check: the override \('layers', 'ln_f'\) names modules of the model"),
        (LayerPaths("norm", None), r"the override's blocks 'norm' are an nn.ModuleList; seen: LlamaRMSNorm"),
        (LayerPaths("layers", None), r"the override's final norm None is applied last; seen: 'norm'"),
        (LayerPaths("layers", "rotary_emb"), r"the override's final norm 'rotary_emb' is applied last; seen: 'norm'"),
    ],
)
def test_a_wrong_override_is_refused(paths, says, monkeypatch):
    monkeypatch.setitem(OVERRIDES, "llama", paths)
    with pytest.raises(ModelError, match=says) as caught:
        HFDecoder(tiny("llama"))
    assert "Correct the row of 'llama'" in str(caught.value)


def test_a_right_override_changes_nothing(monkeypatch):
    by_structure = discover(tiny("llama"))
    monkeypatch.setitem(OVERRIDES, "llama", LayerPaths("layers", "norm"))
    assert discover(tiny("llama")) == by_structure


# --- what transformers ships and cannot be probed ------------------------------------------------------------------

_SIZES = {"vocab_size": 64, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
_SIZES |= {"intermediate_size": 48}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "t5": (
        {"vocab_size": 64, "d_model": WIDTH, "num_layers": 2, "d_ff": 48, "num_heads": 4, "d_kv": 8},
        "one stack of blocks; seen: is_encoder_decoder=True",
    ),
    "bart": (
        {"vocab_size": 64, "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48}
        | {"decoder_ffn_dim": 48, "encoder_attention_heads": 4, "decoder_attention_heads": 4},
        "one stack of blocks; seen: is_encoder_decoder=True",
    ),
    "albert": ({**_SIZES, "embedding_size": WIDTH}, "each block runs once.*'encoder.albert_layer_groups' of 1.*ran 2"),
    "ctrl": (
        {"vocab_size": 64, "n_embd": WIDTH, "n_layer": 2, "n_head": 4, "dff": 48},
        "does not change the vectors it reads; seen: other values in inputs_embeds",
    ),
    "xlnet": (
        {"vocab_size": 64, "d_model": WIDTH, "n_layer": 2, "n_head": 4, "d_inner": 48},
        r"shape of the inputs, \(2, 4, 32\).*block 1 read \(4, 2, 32\)",
    ),
    "xlm": ({"vocab_size": 64, "emb_dim": WIDTH, "n_layers": 2, "n_heads": 4}, "output of block 1 is the input of bl"),
    "rwkv": (
        {"vocab_size": 64, "hidden_size": WIDTH, "num_hidden_layers": 2, "context_length": 64},
        "changes no weight.*divides the weights",
    ),
    "opt": (
        {"vocab_size": 64, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48}
        | {"word_embed_proj_dim": 16, "do_layer_norm_before": False},
        r"the shape of the inputs, \(2, 4, 16\).*read \(2, 4, 32\)",
    ),
    "vit": (
        {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 8, "patch_size": 4},
        "reads tokens; seen: a configuration without vocab_size",
    ),
}


@pytest.mark.parametrize("family", sorted(REFUSED))
def test_what_cannot_be_probed_is_refused_when_it_is_loaded(family, tmp_path):
    config, says = REFUSED[family]
    AutoModel.from_config(AutoConfig.for_model(family, **config)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"(?s)model_type '{family}' could not be verified.*{says}") as caught:
        load_backbone(str(tmp_path))
    assert "Wrap the model in a class of your own" in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("family", sorted(UNUSABLE))
def test_an_unusable_family_changes_its_weights(family, monkeypatch):
    model = AutoModel.from_config(AutoConfig.for_model(family, **REFUSED[family][0]))
    before = {name: weight._version for name, weight in model.named_parameters()}
    with pytest.raises(ModelError):
        discover(model)
    assert {name: weight._version for name, weight in model.named_parameters()} == before  # it was not run
    monkeypatch.delitem(UNUSABLE, family)
    with pytest.raises(ModelError, match=r"a forward pass changes no weight; seen: \d+ changed"):
        discover(model)


def test_weights_on_no_device_are_refused():
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model("llama", **CONFIGS["llama"]))
    with pytest.raises(ModelError, match=r"the model has weights.*Load the weights\."):
        HFDecoder(model)


# --- made-up models ------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Adds a causal mean, or with ``is_leaky`` the mean over all positions; or fails."""

    def __init__(self, is_leaky: bool) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 8)
        self.is_leaky, self.fails = is_leaky, False

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.fails:
            raise ValueError("this block fails")
        steps = torch.arange(1, hidden_states.shape[1] + 1)[:, None]
        mean = hidden_states.mean(1, keepdim=True) if self.is_leaky else hidden_states.cumsum(1) / steps
        return hidden_states + self.mix(mean)


class Sign(nn.Module):
    """A norm that leaves its own output as it is."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states.sign()


class MadeUp(nn.Module):
    """A decoder whose forward pass can break one rule."""

    def __init__(self, fault: str = "", **changes: Any) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="made-up", vocab_size=12, is_causal=True, **changes)
        self.embed = nn.Embedding(12, 8)
        self.blocks = nn.ModuleList(Block(fault == "leaks") for _ in range(3))
        self.adapters = nn.ModuleList(nn.Linear(8, 8) for _ in range(5))  # longer, and no chain
        self.norm = nn.Linear(8, 8) if fault == "no norm" else nn.LayerNorm(8)
        self.fault = fault
        if fault == "no list":
            self.blocks, self.adapters = nn.Sequential(*self.blocks), nn.Identity()  # type: ignore[assignment]

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
        state = inputs_embeds
        hidden = [state]
        for i, block in enumerate(self.blocks):
            state = block(state)
            state = state * 0.5 if self.fault == "scales" and i == 1 else state
            hidden.append(state)
        if self.fault == "changes":
            self.norm.weight.data.mul_(1.0)
            self.norm.weight.mul_(1.0)
        if self.fault == "twice":
            state = self.blocks[2](state)
        last = self.norm(state) + (1.0 if self.fault == "adds" else 0.0)
        hidden[-1] = last
        hidden = hidden[1:] if self.fault == "misses" else hidden
        hidden[1] = hidden[1] + 1 if self.fault == "differs" else hidden[1]
        output = {"hidden_states": None if self.fault == "hides" else tuple(hidden)}
        return type("Output", (tuple,), output)((last,))


def test_a_made_up_decoder_is_read():
    layout = discover(MadeUp())
    assert (layout.blocks, layout.final_norm, layout.n_blocks, layout.width) == ("blocks", "norm", 3, 8)
    assert layout.is_causal


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (
            "scales",
            r"output of block 2 is the input of block 3, in the list 'blocks' of 3; seen: a largest difference of \d.*"
            "; no other list is a chain",
        ),
        ("twice", r"each block runs once in a forward pass, in the list 'blocks' of 3; seen: block 3 ran 2 times; no"),
        ("no list", "the blocks are in an nn.ModuleList; seen: no such list in MadeUp"),
        ("no norm", "'norm', applied last, is a norm: 4 times its input gives the same output; seen: a change of"),
        ("adds", "the last hidden state is the output of the last block, or of one norm.*and no module between"),
        ("misses", "one state per block, here 4; seen: 3"),
        ("differs", r"output_hidden_states\[1\] is the output of block 1; seen: a largest difference of 1\."),
        ("hides", "one state per block, here 4; seen: NoneType"),
        ("changes", r"a forward pass changes no weight; seen: 1 changed \(first: norm.weight\)"),
    ],
)
def test_a_decoder_that_breaks_a_rule_is_refused(fault, says):
    model = MadeUp(fault)
    with pytest.raises(ModelError, match=says) as caught:
        HFDecoder(model)
    assert "model_type 'made-up'" in str(caught.value)
    assert n_hooks(model) == 0


def test_a_norm_that_changes_nothing_is_still_the_final_norm():
    """Blocks that end with a norm may hand on what the final norm leaves as it is; trained weights would not."""
    model = MadeUp()
    model.blocks[2], model.norm = Sign(), Sign()
    assert discover(model).final_norm == "norm"
    model.norm = nn.Dropout()  # in evaluation mode it changes nothing either, and is no norm
    assert discover(model).final_norm is None


def test_a_leaky_decoder_is_not_called_causal():
    decoder = HFDecoder(MadeUp("leaks"))
    assert not decoder.is_causal
    assert decoder.note == "earlier states change with later items, against the configuration"


def test_an_encoder_is_two_sided_without_being_told():
    config = AutoConfig.for_model("roberta", **_SIZES)
    decoder = HFDecoder(AutoModel.from_config(config))
    assert not discover(decoder.model).is_causal
    assert (decoder.is_causal, decoder.note) == (False, "no final norm is recorded")


# --- nothing changes -----------------------------------------------------------------------------------------------


def everything(model: nn.Module) -> dict[str, Any]:
    """What discover() could change."""
    hooks = {
        (path, kind): len(getattr(module, kind))
        for path, module in model.named_modules()
        for kind in vars(module)
        if kind.endswith(("_hooks", "_with_kwargs", "_always_called"))
    }
    return {
        "weights": weights_fingerprint(model),
        "modes": [module.training for module in model.modules()],
        "names": [sorted(vars(module)) for module in model.modules()],
        "gradients": [weight.grad for weight in model.parameters()],
        "requires_grad": [weight.requires_grad for weight in model.parameters()],
        "hooks": hooks,
        "config": str(model.config),
        "random": torch.get_rng_state().tolist(),
    }


@pytest.mark.parametrize("family", ["llama", "bert", "gemma3_text", "mamba", "mixtral", "opt"])
def test_nothing_about_a_model_changes(family):
    model = tiny(family).train()
    model.get_input_embeddings().eval()
    calls: list[int] = []
    handle = model.get_input_embeddings().register_forward_hook(lambda *_: calls.append(1))
    before = everything(model)
    discover(model)
    assert everything(model) == before
    calls.clear()
    model(input_ids=torch.tensor([[1, 2]]))
    assert calls == [1]  # the hook of the caller is there
    handle.remove()
    assert n_hooks(model) == 0


def test_nothing_changes_when_a_block_fails():
    model = MadeUp().train()
    model.blocks[1].fails = True
    model.blocks[0].eval()
    before = everything(model)
    with pytest.raises(ModelError, match="runs; seen: ValueError: this block fails"):
        discover(model)
    assert everything(model) == before
    model.blocks[1].fails = False
    assert discover(model).n_blocks == 3


def test_hidden_states_can_be_asked_for_afterwards():
    decoder = HFDecoder(tiny("llama"))
    with torch.no_grad():
        hidden = decoder.model(input_ids=torch.tensor([[1, 2, 3]]), output_hidden_states=True).hidden_states
    assert len(hidden) == N_BLOCKS + 1


# --- offloaded, adapted, half precision ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_an_offloaded_model_has_the_same_layout(family):
    expected = discover(tiny(family))
    assert discover(cpu_offload(tiny(family), execution_device="cpu")) == expected


def test_a_model_with_an_adapter_in_it_has_the_same_layout():
    from peft import LoraConfig, get_peft_model

    expected = discover(tiny("llama"))
    wrapped = get_peft_model(tiny("llama"), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    decoder = HFDecoder(wrapped)
    assert discover(decoder.model) == expected
    assert any("lora_A" in name for name, _ in decoder.named_parameters())
    assert n_hooks(decoder) == 0


@pytest.mark.parametrize("family", ["llama", "gemma", "gpt2", "bert", "mamba", "minimax", "qwen3_moe"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_the_same_layout(family, dtype):
    model = tiny(family)
    expected = discover(model)
    assert discover(model.to(dtype)) == expected


def test_the_blocks_of_a_model_with_pictures_are_those_that_read_text():
    text = {**CONFIGS["gemma"], "num_hidden_layers": 2}
    vision = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24}
    vision |= {"image_size": 28, "patch_size": 14}
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=1)
    decoder = HFDecoder(AutoModel.from_config(config))
    layout = discover(decoder.model)
    assert (layout.blocks, layout.final_norm, layout.n_blocks) == ("language_model.layers", "language_model.norm", 2)
    with pytest.raises(ValueError, match="64 positions; got sequences of 65"):
        decoder.forward_sequences(torch.zeros(1, 65, WIDTH), torch.tensor([65]))


def test_the_page_lists_what_is_tested_and_what_is_refused():
    page = (Path(__file__).resolve().parents[3] / "docs" / "decoders.md").read_text(encoding="utf-8")
    _, tested, overridden, refused = re.split(r"\n## (?=Families|Where|What is refused)", page)

    def first_column(part: str) -> set[str]:
        rows = [row.split("|")[1] for row in part.splitlines() if row.startswith("| `")]
        return {name for row in rows for name in re.findall(r"`([a-z0-9_-]+)`", row)}

    assert set(re.findall(r"`([a-z0-9_-]+)`(?: ·|\n)", tested)) == set(PATHS)
    assert first_column(overridden) == set(OVERRIDES)
    assert first_column(refused) == set(REFUSED)
