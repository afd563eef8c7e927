"""The backbone with new words: one for each virtual token, whose embedding is its vector.

A plain `AutoModel` and `AutoTokenizer` load the folder, and whatever converts such folders (GGUF, ...) does too; the
words are special tokens such as `<|tickets:0|>`, written in the text where the prompt stood. Many tasks may be baked
into one model, each with words of its own.

Input rows: the vector, divided by the scale of the embedding module where it has one (Gemma, BART). Output rows: the
new words must never be what the model says.

* Where the vocabulary has a bias (BERT, BART, ...), theirs is -1e9 (half of the least number in float16).
* Where it has none, their row is the mean of all rows of the old vocabulary, in a matrix of its own: the logit of a new
  word is then the mean of the old ones, never more than the largest, and its share in the softmax is at most 1/V
  (Jensen's inequality), far less in practice. `suppress_tokens` in generation_config.json makes it zero in `generate`.

Parameters: N E numbers for N virtual tokens, and V E more where matrices that were one are parted.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from trimtab.backbones import Backbone
from trimtab.backbones.loading import locate, quietly
from trimtab.errors import BackboneError, BundleError
from trimtab.exporting import Export, Source, Written
from trimtab.exporting.heads import write_head
from trimtab.exporting.refusals import refuse
from trimtab.exporting.spelling import probe, spell
from trimtab.loading import check_code, from_bundle
from trimtab.predictor import Predictor
from trimtab.registry import exports

_NEVER = -1e9


@final
@exports.register("baked")
class Baked(Export):
    """The backbone with a word for each virtual token, for any engine.

    Args:
        dtype: of the weights; `auto` is float32, or the checkpoint's own where the run had no more than that.
        shard: the largest file, as transformers writes sizes.
    """

    takes_several = True

    def __init__(
        self, *, dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto", shard: str = "5GB"
    ) -> None:
        self.dtype, self.shard = dtype, shard

    def write(self, sources: Sequence[Source], folder: Path) -> Written:
        for source in sources:
            refuse(source, "baked", "deep", "gate", "text_offset", "router", "drawn", "embed_twice", "nothing")
            _check_together(source, sources)
        dtype = self._dtype(sources[0])
        predictors = _opened(sources, dtype)
        backbone = predictors[0].model.backbone
        tokenizer, model = copy.deepcopy(backbone.encoder.tokenizer), backbone.model.to(dtype)
        words = {name: _words(name, s.bundle.slots) for name, s in zip(_names(sources), sources, strict=True)}
        ids = _add(tokenizer, words, str(sources[0].path))
        vectors = torch.from_numpy(np.concatenate([s.bundle.prompt for s in sources]))
        spelled = [spell(p, its, tokenizer=tokenizer) for p, its in zip(predictors, words.values(), strict=True)]
        _, encoded = probe(predictors[0], 0)
        grow(backbone, ids, vectors, encoded.ids)
        notes = [note for its in spelled for note in its.notes]
        for name, source in zip(words, sources, strict=True):
            notes += write_head(source, folder, "a baked model", f"{name}.head.safetensors")
        _set_generation(model, sources[0], ids)
        with quietly():
            model.save_pretrained(folder, max_shard_size=self.shard)
            tokenizer.save_pretrained(folder)
        tasks = tuple(
            {"tokens": its, "ids": tokenizer.convert_tokens_to_ids(its), "decoder": _decoder(p, its), **s.as_json()}
            for p, its, s in zip(predictors, words.values(), spelled, strict=True)
        )
        return Written(tasks, tuple(notes))

    def _dtype(self, source: Source) -> torch.dtype:
        """The dtype of the weights."""
        if self.dtype != "auto":
            return getattr(torch, self.dtype)  # type: ignore[no-any-return]
        from transformers import AutoConfig

        stated = source.bundle.metadata
        run = str(stated.get("provenance", {}).get("environment", {}).get("dtype", "float32"))
        name, options = source.model or stated["backbone"]["model"], stated["backbone"]["options"]
        check_code(stated["backbone"])
        own = AutoConfig.from_pretrained(
            locate(name), revision=options["revision"], trust_remote_code=options["trust_remote_code"]
        ).dtype
        return torch.float32 if run == "float32" or own is None or source.bundle.tuned else own


def _check_together(source: Source, sources: Sequence[Source]) -> None:
    """Several prompts must be of one frozen backbone, which is no quantized one."""
    first, its = (s.bundle.metadata for s in (sources[0], source))
    why = None
    if its["backbone"]["options"]["quantization"]:
        why, fix = "its backbone is quantized, so its matrices cannot take new rows", "Train on it as it was published."
    elif source.bundle.tuned and len(sources) > 1:
        why, fix = "its backbone was trained with it, so others cannot share it", "Bake it alone."
    elif any(its[part]["fingerprint"] != first[part]["fingerprint"] for part in ("backbone", "tokenizer")):
        why = f"it was trained on another backbone ({its['backbone']['model']}) than {sources[0].path}"
        fix = "Bake runs of one backbone into one model."
    if why is not None:
        raise BundleError(f"the prompt cannot be baked: {why}.", where=str(source.path), fix=fix)


def _opened(sources: Sequence[Source], dtype: torch.dtype) -> list[Predictor]:
    """All prompts on one backbone, in float32 unless its weights are bfloat16."""
    kind = "bfloat16" if dtype == torch.bfloat16 else "float32"
    first = sources[0].open(kind)
    if sources[0].bundle.tuned:
        _check_plain(sources[0], first.model.backbone)
    return [first, *(from_bundle(s.bundle, first.model.backbone, str(s.path)) for s in sources[1:])]


def _check_plain(source: Source, backbone: Backbone) -> None:
    """A backbone that was trained must be nothing but its own weights."""
    own = set(type(backbone.model)(backbone.model.config).state_dict())
    if others := sorted(set(backbone.model.state_dict()) - own):
        raise BundleError(
            f"the prompt cannot be baked: what was trained of its backbone is no weight of its own ({others[0]}).",
            where=str(source.path),
            fix="Train with backbone.tuning=all or biases.",
        )


def _names(sources: Sequence[Source]) -> list[str]:
    """What the words of each task are called: letters, digits, `_`, `.` and `-`, each task another."""
    wanted = ["".join(c if c.isalnum() or c in "_.-" else "_" for c in s.name) for s in sources]
    names: list[str] = []
    for name in wanted:
        while name in names:
            stem, _, number = name.rpartition("-")
            name = f"{stem}-{int(number) + 1}" if number.isdecimal() and stem else f"{name}-2"
        names.append(name)
    return names


def _words(name: str, count: int) -> list[str]:
    return [f"<|{name}:{i}|>" for i in range(count)]


def _add(tokenizer: Any, words: dict[str, list[str]], where: str) -> list[int]:
    """Make the words known to the tokenizer; returns their ids."""
    from transformers import AddedToken

    known, names = tokenizer.get_vocab(), [word for its in words.values() for word in its]
    taken = [word for word in names if word in known]
    if taken:
        raise BackboneError(f"the tokenizer knows {taken[0]!r} already.", where=where, fix="Name the task otherwise.")
    # white space before a virtual token belongs to no word, as in templates
    tokenizer.add_tokens(
        [AddedToken(w, lstrip=True, normalized=False, special=True) for w in names], special_tokens=True
    )
    ids: list[int] = tokenizer.convert_tokens_to_ids(names)
    if set(ids) & set(known.values()) or len(set(ids)) < len(names):
        raise BackboneError("the tokenizer gave new words the ids of old ones, so it cannot take any.", where=where)
    return ids


def _decoder(predictor: Predictor, words: Sequence[str]) -> list[str]:
    """The words that stand in the decoder, right after its start token."""
    return [words[row] for row in predictor.rendering.template.decoder_rows]


@torch.no_grad()
def grow(backbone: Backbone, ids: Sequence[int], vectors: Float[Tensor, "N E"], text: Sequence[int]) -> None:
    """Give a model rows for new words that it never says.

    Args:
        ids: of the new words.
        vectors: what they are to enter the model as.
        text: token ids to try the model on, before and after.

    Raises:
        BackboneError: the model's code does not allow it.
    """
    model = backbone.model
    matrix, output = model.get_input_embeddings().weight, model.get_output_embeddings()
    old = matrix.shape[0]
    if getattr(output, "weight", torch.zeros(0)).shape[:1] != (old,):
        raise BackboneError(
            f"the vocabulary matrix of {type(model).__name__} is not where transformers says, so it cannot grow.",
            where="backbone.model",
            fix="Use the prompt with trimtab.",
        )
    words = sorted(i for i in set(backbone.encoder.tokenizer.get_vocab().values()) if i < old)
    before = _logits(model, text)
    has_bias = getattr(output, "bias", None) is not None or hasattr(model, "final_logits_bias")
    if not has_bias:
        output.weight = nn.Parameter(output.weight.detach().clone(), requires_grad=False)
    if output.weight.data_ptr() != matrix.data_ptr():
        model.config.tie_word_embeddings = False  # else growing makes one matrix of the two
    with quietly():
        model.resize_token_embeddings(max(old, max(ids) + 1), mean_resizing=False)
    at, module, output = torch.tensor(list(ids)), model.get_input_embeddings(), model.get_output_embeddings()
    module.weight[at] = (vectors / _scale(module)).to(module.weight.dtype)
    _silence(model, output, at, words, has_bias)
    after = _logits(model, text)[..., words]
    near = max(1e-3, 8 * torch.finfo(model.dtype).eps)
    if not torch.allclose(after, before[..., words], rtol=near, atol=near * float(before.abs().max())):
        raise BackboneError(
            f"{type(model).__name__} answers otherwise with new words in its vocabulary, so it cannot take any.",
            where="backbone.model",
            fix="Use the prompt with trimtab.",
        )


def _scale(module: Any) -> float:
    """What an embedding module multiplies its rows with; a tensor (Gemma) is in the dtype of the weights by now."""
    scale = getattr(module, "embed_scale", None)
    return 1.0 if scale is None else float(scale)


def _silence(model: Any, output: Any, at: Int[Tensor, "N"], words: Sequence[int], has_bias: bool) -> None:
    """Make sure that new words never win."""
    if not has_bias:
        output.weight[at] = output.weight[list(words)].float().mean(0).to(output.weight.dtype)
        return
    bias = model.final_logits_bias[0] if hasattr(model, "final_logits_bias") else output.bias
    bias[at] = max(_NEVER, torch.finfo(torch.float16).min / 2 if bias.dtype == torch.float16 else _NEVER)


def _logits(model: Any, text: Sequence[int]) -> Float[Tensor, "1 T V"]:
    ids = torch.tensor([list(text)])
    decoder = {"decoder_input_ids": ids[:, :1]} if model.config.is_encoder_decoder else {}
    return model(input_ids=ids, **decoder).logits.float()


def _set_generation(model: Any, source: Source, ids: Sequence[int]) -> None:
    """How the checkpoint generates, but for the new words."""
    from transformers import GenerationConfig

    if not model.can_generate():
        return
    stated = source.bundle.metadata["backbone"]
    try:
        own = GenerationConfig.from_pretrained(
            locate(source.model or stated["model"]), revision=stated["options"]["revision"] or "main"
        )
    except OSError:  # it has no such file
        own = GenerationConfig.from_model_config(model.config)
    own.suppress_tokens = sorted({*(own.suppress_tokens or ()), *ids})
    model.generation_config = own
