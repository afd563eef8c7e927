"""Deep prompts: trained keys and values in every layer (P-tuning v2, Liu et al. 2022, arXiv 2110.07602, section 3.2; as
prefix-tuning, Li and Liang 2021, arXiv 2101.00190, without its reparameterization).

    K_l <- [PK_l ; K_l],    V_l <- [PV_l ; V_l],        PK_l, PV_l in R^{P x K x D} for each layer l

Symbols: P prompt length, K key/value heads of size D (K D = the hidden size d where heads are not shared), N layers
that have a prompt. The prompt has no queries: it has no hidden states, and takes no positions.

Reparameterizations, gone after training, over the layers of all sites at once (O = 2 N K D numbers per token in all):

    mlp       [PK ; PV] = W2 tanh( W1 p + b1 ) + b2                W1: d -> m, W2: m -> O,  p in R^{P x d}
    residual  the same from p + phi(p), with phi of Residual Prompt Tuning (arXiv 2305.03937) without LayerNorm: ours

Parameters: P O; with `mlp` P d + d m + m + m O + O; with `residual` 2 d w + w + d more (w: `bottleneck`). Kept: P O.
BERT-large, P = 20: 983,040, and 25,760,256 with `mlp` while training. Gates add a number per layer and query head.
Cost per step: attention over P more columns, no longer sequence.

`init`: `normal` is the released code's. `vocabulary` and `text` take what the backbone itself computes from P random
words, or from a text; Li and Liang found activations of real words the best start (section 7.4). `gate: zero` starts as
the bare model, exactly: see `trimtab.injection`. `initializer: {kind: from_run, run: ...}` takes keys, values and gates
of another run.

Deviations: the released code moves the text to positions P, P+1, ... (`shift_positions: true`); by default it stays,
but for `text`, whose keys were computed at positions 0 to P-1. Dropout of the prompt is off by default (the code has
the backbone's). The paper's heads for each task are the readouts `head`, `tokens`, `span` and `choice`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, final

import torch
from pydantic import Field
from torch import Tensor, nn

from trimtab.errors import ConfigError
from trimtab.initializers import Initializer, PromptContext, Transfer, part_of, repeated_ids
from trimtab.prompt_table import Site
from trimtab.prompts import PromptEncoder
from trimtab.registry import initializers, prompts

_WIDTH, _BOTTLENECK = 512, 400


@final
@prompts.register("deep")
class Deep(PromptEncoder):
    """Keys and values in every layer (P-tuning v2, Liu et al. 2022).

    Args:
        length: number of virtual tokens P in each layer; none of them stands in the text.
        layers: `all`, `top:N`, or a list of layers, counted from 0 at the bottom (-1 is the top).
        sites: of encoder-decoders: `encoder`, `decoder` (each one's attention to itself), `cross` (the decoder's to the
            encoder); by default encoder and decoder. Other models have one site, `self`.
        reparameterization: `none`, `mlp` (the paper's) or `residual` (ours).
        width: m, hidden width of the reparameterization.
        bottleneck: w, of the residual network.
        init: `normal`, `vocabulary` or `text`; with a reparameterization `normal` only, of its raw rows.
        initializer: `from_run` in the place of `init`; not with a reparameterization.
        scale: standard deviation of `normal`.
        text: for `init: text`; a shorter text is repeated.
        gate: `zero` gives the prompt a softmax of its own that is faded in from nothing, `none` lets it share the
            text's.
        shift_positions: move the text to the positions behind the prompt; by default only for `init: text`, and there
            only on backbones that count positions from given ones.
        dropout: of keys and values, in training only.
        input: an input prompt besides, such as `{kind: prompt_tuning, length: 5}`.
    """

    default_learning_rate = 1e-2

    def __init__(
        self,
        context: PromptContext,
        *,
        length: Annotated[int, Field(ge=1)] = 20,
        layers: Annotated[str, Field(pattern=r"^(all|top:[1-9]\d*)$")] | list[int] = "all",
        sites: Literal["auto"] | list[Literal["self", "encoder", "decoder", "cross"]] = "auto",
        reparameterization: Literal["none", "mlp", "residual"] = "none",
        width: Annotated[int, Field(ge=1)] = _WIDTH,
        bottleneck: Annotated[int, Field(ge=1)] = _BOTTLENECK,
        init: Literal["normal", "vocabulary", "text"] = "normal",
        initializer: Annotated[Initializer | None, initializers] = None,
        scale: Annotated[float, Field(gt=0)] = 1.0,
        text: str = "",
        gate: Literal["none", "zero"] = "none",
        shift_positions: bool | None = None,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        input: Annotated[PromptEncoder | None, prompts] = None,
    ) -> None:
        super().__init__()
        self.length, self.sites = length, _chosen_sites(context.sites(), sites)
        self.layers = {name: _chosen_layers(name, site, layers) for name, site in self.sites.items()}
        given = {"shift_positions": shift_positions, "init": init, "length": length}
        self.text_shift = self.position_shift(given, context.takes_positions)
        self.input, self.drop = input, nn.Dropout(dropout)
        self.router_noise = 0.0 if input is None else input.router_noise
        self.register_buffer("empty", torch.zeros(0, context.embedding_size), persistent=False)
        self.network: nn.Module | None = None
        self.branch: nn.Module | None = None
        _check_start(reparameterization, init, initializer)
        gates = {n: torch.zeros(len(self.layers[n]), s.queries) for n, s in self.sites.items()}
        if reparameterization == "none":
            first = self._first(context, init, scale, text)
            if initializer is not None:
                first, gates = self._of_run(context, initializer, gates)
            self.rows = nn.ParameterDict({name: nn.Parameter(values) for name, values in first.items()})
        else:
            size = context.hidden_size
            raw = scale * torch.randn(length, size, generator=context.generator)
            self.rows = nn.ParameterDict({"raw": nn.Parameter(raw)})
            outputs = sum(map(self._numbers, self.sites))
            self.network = nn.Sequential(nn.Linear(size, width), nn.Tanh(), nn.Linear(width, outputs))
            if reparameterization == "residual":
                self.branch = nn.Sequential(nn.Linear(size, bottleneck), nn.ReLU(), nn.Linear(bottleneck, size))
        its = {name: nn.Parameter(values) for name, values in gates.items()}
        self.gates = nn.ParameterDict(its if gate == "zero" else {})

    def forward(self) -> dict[str, Tensor]:
        parts = {"inputs": self.get_buffer("empty")} if self.input is None else self.input.parts()
        table = self._projected() if self.network is not None else dict(self.rows.items())
        parts |= {f"deep.{name}": self.drop(values * 1.0) for name, values in table.items()}
        return parts | {f"gate.{name}": values * 1.0 for name, values in self.gates.items()}

    def _projected(self) -> dict[str, Tensor]:
        """Keys and values of every site from the raw rows."""
        rows = self.rows["raw"]
        assert self.network is not None
        outputs = self.network(rows if self.branch is None else rows + self.branch(rows))
        parts = outputs.split([self._numbers(name) for name in self.sites], dim=1)
        found = {}
        for (name, site), its in zip(self.sites.items(), parts, strict=True):
            shape = (self.length, len(self.layers[name]), 2, site.heads, site.size)
            found[name] = its.reshape(shape).permute(1, 2, 0, 3, 4)
        return found

    def _numbers(self, name: str) -> int:
        """Numbers per virtual token at a site."""
        site = self.sites[name]
        return 2 * len(self.layers[name]) * site.heads * site.size

    def _of_run(
        self, context: PromptContext, initializer: Initializer, gates: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """First keys and values, and gates, from another run; its gates where it has any."""
        stated = initializer.stated(context) if isinstance(initializer, Transfer) else {}
        known = stated.get("layers", {})
        values, found = {}, dict(gates)
        for name, site in self.sites.items():
            layers = tuple(known.get(name, ()))
            if not layers:
                others = f"Set prompt.sites=[{', '.join(known)}]"
                raise ConfigError(
                    f"the initializer has no keys and values for the site {name!r}.",
                    where="prompt.initializer",
                    fix=f"{others if known else 'Name a run with a deep prompt'}, or use prompt.init.",
                )
            if layers != self.layers[name]:
                raise ConfigError(
                    f"the prompt has layers {list(layers)} at the site {name!r}, this run {list(self.layers[name])}.",
                    where="prompt.initializer.run",
                    fix=f"Set prompt.layers={list(layers)}.",
                )
            shape = (len(layers), 2, self.length, site.heads, site.size)
            values[name] = part_of(initializer, context, f"deep.{name}", shape, "prompt.length")
            gate = part_of(initializer, context, f"gate.{name}", tuple(gates[name].shape), "prompt.gate")
            found[name] = found[name] if gate is None else gate
        if stated.get("shift", 0) != self.text_shift:
            raise ConfigError(
                f"the prompt was trained with the text moved {stated.get('shift', 0)} positions on, this run moves it "
                f"{self.text_shift}.",
                where="prompt.initializer.run",
                fix=f"Set prompt.shift_positions={str(bool(stated.get('shift'))).lower()}.",
            )
        return {name: its for name, its in values.items() if its is not None}, found

    def _first(self, context: PromptContext, init: str, scale: float, text: str) -> dict[str, Tensor]:
        """First keys and values [N,2,P,K,D] of every site."""
        if init == "normal":
            found = {}
            for name, site in self.sites.items():
                shape = (len(self.layers[name]), 2, self.length, site.heads, site.size)
                found[name] = scale * torch.randn(shape, generator=context.generator)
            return found
        is_text = init == "text"
        ids = repeated_ids(context, text, self.length, "prompt.text") if is_text else self._words(context)
        known = context.keys_values(torch.tensor(ids))
        return {name: known[name][list(its)] for name, its in self.layers.items()}

    def _words(self, context: PromptContext) -> list[int]:
        picks = torch.randint(len(context.words), (self.length,), generator=context.generator)
        return [context.words[i] for i in picks.tolist()]

    @staticmethod
    def slots(options: Mapping[str, Any]) -> int:
        inner = options.get("input")
        return 0 if inner is None else int(prompts.get(inner["kind"]).slots(inner))  # type: ignore[attr-defined]

    @staticmethod
    def position_shift(options: Mapping[str, Any], takes_positions: bool) -> int:
        wanted = options["shift_positions"]
        is_shifted = (options["init"] == "text" and takes_positions) if wanted is None else wanted
        return int(options["length"]) if is_shifted else 0

    @staticmethod
    def has_network(options: Mapping[str, Any]) -> bool:
        inner = options.get("input")
        own = options["reparameterization"] != "none"
        return own or (inner is not None and bool(prompts.get(inner["kind"]).has_network(inner)))  # type: ignore[attr-defined]

    @staticmethod
    def count(length: int, size: int, **options: Any) -> int:
        outputs, gates = _outputs(options)
        kind, inner = options.get("reparameterization", "none"), options.get("input")
        others = gates if inner is None else gates + prompts.get(inner["kind"]).count(size=size, **inner)  # type: ignore[attr-defined]
        if kind == "none":
            return length * outputs + others
        d, m, w = options["hidden_size"], options.get("width", _WIDTH), options.get("bottleneck", _BOTTLENECK)
        network = d * m + m + m * outputs + outputs + (2 * d * w + w + d if kind == "residual" else 0)
        return length * d + network + others

    @staticmethod
    def kept(length: int, size: int, **options: Any) -> int:
        outputs, gates = _outputs(options)
        inner = options.get("input")
        others = gates if inner is None else gates + prompts.get(inner["kind"]).kept(size=size, **inner)  # type: ignore[attr-defined]
        return length * outputs + others


def _check_start(reparameterization: str, init: str, initializer: Initializer | None) -> None:
    """Refuse a start that cannot be had."""
    got = "prompt.initializer" if initializer is not None else f"prompt.init={init}"
    if reparameterization != "none" and (init != "normal" or initializer is not None):
        raise ConfigError(
            f"with a reparameterization the first keys and values are what the network makes of random rows, so init "
            f"must be normal, got {got}.",
            where="prompt.init",
            fix="Set prompt.reparameterization=none, or leave prompt.init and prompt.initializer out.",
        )
    if initializer is not None and init != "normal":
        raise ConfigError(
            f"either another run or init says where keys and values begin, got both (init={init}).",
            where="prompt.init",
            fix="Leave one of prompt.init and prompt.initializer out.",
        )


def _outputs(options: Mapping[str, Any]) -> tuple[int, int]:
    """Numbers per virtual token over all sites and layers, and gates; for resolved options and the sites `there`."""
    sites = _chosen_sites(options["there"], options.get("sites", "auto"))
    layers = {n: len(_chosen_layers(n, site, options.get("layers", "all"))) for n, site in sites.items()}
    gates = sum(layers[n] * s.queries for n, s in sites.items()) if options.get("gate") == "zero" else 0
    return sum(2 * layers[n] * s.heads * s.size for n, s in sites.items()), gates


def _chosen_sites(there: Mapping[str, Site], wanted: str | Sequence[str]) -> dict[str, Site]:
    """The sites of the backbone that have a prompt, in its own order."""
    if isinstance(wanted, str):
        return {name: site for name, site in there.items() if name != "cross"}
    for name in wanted:
        if name not in there:
            raise ConfigError(
                f"nothing is read from the site {name!r} of this backbone with this readout.",
                where="prompt.sites",
                fix=f"There are: {', '.join(there)}.",
            )
    if not wanted:
        raise ConfigError("at least one site is needed.", where="prompt.sites", fix=f"There are: {', '.join(there)}.")
    return {name: site for name, site in there.items() if name in wanted}


def _chosen_layers(name: str, site: Site, wanted: str | Sequence[int]) -> tuple[int, ...]:
    """The layers of a site that have a prompt, ascending."""
    if wanted == "all":
        return tuple(range(site.layers))
    if isinstance(wanted, str):
        top = int(wanted.removeprefix("top:"))
        if top > site.layers:
            raise ConfigError(
                f"there are {site.layers} layers at the site {name!r}, got {wanted}.", where="prompt.layers"
            )
        return tuple(range(site.layers - top, site.layers))
    for layer in wanted:
        if not -site.layers <= layer < site.layers:
            raise ConfigError(
                f"there is no layer {layer} at the site {name!r}, which has {site.layers}.",
                where="prompt.layers",
                fix=f"Layers are counted from 0 to {site.layers - 1}, from the bottom; -1 is the top.",
            )
    chosen = tuple(sorted({layer % site.layers for layer in wanted}))
    if not chosen:
        raise ConfigError("at least one layer is needed.", where="prompt.layers", fix="Use all, top:4 or [0, 1].")
    return chosen
