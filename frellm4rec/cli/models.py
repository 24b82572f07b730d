"""``frellm4rec models``: which recommenders are installed, and the recipe of each."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from frellm4rec.cli.completion import complete_recommenders
from spectral_probe.cli.flags import examples
from spectral_probe.cli.json_output import AsJson, Fields, print_json
from spectral_probe.cli.terminal import say

EXAMPLES = examples(
    "frellm4rec models", "frellm4rec models sasrec > recipe.yaml", "frellm4rec models --fields name,loss"
)


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Print the resolved recipe and the search grid of this one.",
            autocompletion=complete_recommenders,
        ),
    ] = None,
    as_json: AsJson = False,
    fields: Fields = None,
) -> None:
    """List the recommenders that can be trained or counted, and what each reads and offers.

    With a name: all settings of its default run, as `frellm4rec train RECIPE` reads them, and what a search varies.
    """
    from frellm4rec.models.registry import model_names

    if name is not None:
        _print_recipe(name, as_json, fields)
        return
    rows = [_describe(known) for known in model_names()]
    if as_json or fields:
        print_json(rows, fields)
        return
    from spectral_probe.cli.tables import print_rows

    print_rows([_cells(row) for row in rows], least=("title", "paper", "loss"))


def _describe(name: str) -> dict[str, Any]:
    """Return what a registered model says of itself in its default configuration."""
    from frellm4rec.models.registry import model_class
    from frellm4rec.runs.defaults import model_defaults

    kind, defaults = model_class(name), model_defaults(name)
    traits = kind.traits
    losses = _losses(name)
    return {
        "name": name,
        "title": defaults.title,
        "source": defaults.source,
        "is_trained": traits.is_trained,
        "is_causal": traits.is_causal,
        "reads": sorted(traits.reads),
        "loss": losses[0] if losses else ("softmax" if traits.is_trained else ""),
        "other_losses": losses[1:],
        "is_inner_product": traits.is_inner_product,
        "can_rank_all": traits.can_rank_all,
        "why_no_layers": traits.why_no_layers,
        "exceptions": dict(traits.exceptions),
    }


def _losses(name: str) -> list[str]:
    """Return the losses of a model's config, the published one first; none if it offers no choice."""
    from typing import get_args, get_type_hints

    from frellm4rec.models.registry import model_class
    from frellm4rec.runs.defaults import model_defaults

    config = model_class(name).config_class
    if "loss" not in config.__dataclass_fields__:
        return []
    published = model_defaults(name).published.get("architecture.loss", config.__dataclass_fields__["loss"].default)
    return [str(published), *(str(loss) for loss in get_args(get_type_hints(config)["loss"]) if loss != published)]


def _cells(row: dict[str, Any]) -> dict[str, str]:
    return {
        "model": row["name"],
        "title": row["title"],
        "paper": row["source"],
        "reads": ", ".join(row["reads"]) + ("" if row["is_causal"] else "; a state sees later items"),
        "loss": f"{row['loss']} ({', '.join(row['other_losses'])})"
        if row["other_losses"]
        else row["loss"] or "counted",
        "probeable": f"no: {row['why_no_layers']}" if row["why_no_layers"] else "yes",
    }


def _print_recipe(name: str, as_json: bool, fields: str | None) -> None:
    import yaml

    from frellm4rec.models.registry import model_class
    from frellm4rec.runs.defaults import model_defaults
    from frellm4rec.runs.recipe import Recipe

    left_out = {"name", "from_dir", *(() if model_class(name).traits.is_trained else ("training", "threads"))}
    recipe = {key: value for key, value in Recipe(model=name).to_dict().items() if key not in left_out}
    search = dict(model_defaults(name).search)
    if as_json or fields:
        print_json({**_describe(name), "recipe": recipe, "search": search}, fields)
        return
    say(yaml.safe_dump(recipe, sort_keys=False).rstrip())
    if search:
        say("# what a search varies:")
    for setting, values in search.items():
        say(f"#   {setting}: {', '.join(map(str, values))}")
