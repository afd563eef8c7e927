"""Text: the model writes its answer, and what it wrote is compared as a string (the text-to-text format of Raffel et
al. 2020, in which Lester et al. 2021 and Residual Prompt Tuning, arXiv 2305.03937, train and score their prompts).

    loss = - 1/n sum over j of log p( y_j | text, y_1 .. y_(j-1) ),    y = the answer's n tokens, the end token included

normalized over the whole vocabulary. To predict, the model writes greedily until the end token or `max_new_tokens`.

A causal model writes where `{answer}` stands; what follows it in the template is left out. The decoder of an
encoder-decoder writes after its start token; where the vocabulary has T5's sentinels, `<extra_id_0>` stands in the
encoder's slot and before the answer, and `<extra_id_1>` ends it, as in span corruption (`sentinel`).

On a task with label words the first word of a class is what the model learns to write; any of them counts.

Deviations: the loss is averaged over the tokens of an example, then over examples; T5's code averages over all tokens
of a batch, which would make an example's weight depend on its batch mates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import mode
from typing import Annotated, Any, ClassVar, Literal, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from trimtab.backbones import Backbone
from trimtab.errors import TemplateError
from trimtab.metrics import majority_baseline, normalized, written_answers
from trimtab.readouts import WordIds
from trimtab.readouts.sentinels import sentinel_of
from trimtab.readouts.vocabulary import Vocabulary
from trimtab.readouts.written import Written, mean_likelihood
from trimtab.registry import readouts
from trimtab.text_encoder import TextEncoder
from trimtab.types import AnswerPlan, Batch, Fill, Row


@final
@readouts.register("text")
class Text(Written):
    """Free text, written token by token.

    Args:
        max_new_tokens: how much may be written; an answer to learn from that is longer, its end token included, is
            refused (but see `as_released`).
        sentinel: whether an encoder-decoder reads and writes T5's sentinels around the answer; `auto`: where it can.
        as_released: as the released code of Residual Prompt Tuning, learn the end token twice, as it is written out
            behind answers and the tokenizer appends another, and of an answer that is longer than `max_new_tokens` the
            beginning with one end token, as the tokenizer cuts.
    """

    kinds: ClassVar[tuple[str, ...]] = ("class", "text", "match")
    metrics: ClassVar[tuple[str, ...]] = ("exact_match", "token_f1", "rouge_l")

    def __init__(
        self,
        backbone: Backbone,
        plans: Sequence[AnswerPlan],
        *,
        max_new_tokens: Annotated[int, Field(ge=1)] = 32,
        sentinel: Literal["auto", "yes", "no"] = "auto",
        as_released: bool = False,
    ) -> None:
        self._vocabulary = Vocabulary(backbone)
        self.new_tokens = max_new_tokens
        self.end_id = _end(backbone.encoder, sentinel)

    @classmethod
    def plan(
        cls,
        encoder: TextEncoder,
        words: WordIds,
        *,
        max_new_tokens: int = 32,
        sentinel: str = "auto",
        as_released: bool = False,
        **options: Any,
    ) -> AnswerPlan:
        """An open slot to write into, and how a known answer fills it."""
        end = (_end(encoder, sentinel),) * (2 if as_released else 1)
        if encoder.decoder_start_id is None:
            begin = Fill((), (-1,), is_last=True)
            write = partial(_write, begin, end, max_new_tokens, as_released)
            return AnswerPlan((begin,), write=write, room=max_new_tokens)
        ids = sentinel_of(encoder, sentinel)
        head = (encoder.decoder_start_id, *(ids or encoder.prefix))
        begin = Fill(ids, (len(head) - 1,), head)
        write = partial(_write, begin, end, max_new_tokens, as_released)
        return AnswerPlan((begin,), write=write, room=len(ids), decoder_room=len(head) + max_new_tokens)

    def scores(
        self, hidden: Float[Tensor, "B A H"], batch: Batch, heads: Mapping[str, Tensor] = {}
    ) -> Float[Tensor, "X 1"]:
        """Mean log-likelihood per token of the answer; not a number where none is known."""
        return mean_likelihood(self._vocabulary.likelihoods(hidden, batch), batch)

    def measure(self, rows: Sequence[Row], answers: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
        """Exact match, token F1 and ROUGE-L with the right answer (of a class: its first label word)."""
        return written_answers([row.gold for row in rows], answers)

    def constant(self, rows: Sequence[Row], metric: str) -> float | None:
        """Accuracy of the most frequent class; of free text, the metric of the most frequent answer."""
        if metric == "accuracy":
            return majority_baseline([str(row.origin.label) for row in rows])
        always = mode(normalized(row.gold) for row in rows)
        return float(written_answers([row.gold for row in rows], [always] * len(rows))[metric])


def _end(encoder: TextEncoder, sentinel: str) -> int:
    """The token that ends an answer."""
    has_sentinel = encoder.decoder_start_id is not None and bool(sentinel_of(encoder, sentinel))
    if has_sentinel and encoder.second_sentinel_id is not None:
        return encoder.second_sentinel_id
    if encoder.end_id is None:
        raise TemplateError(
            "the readout 'text' needs a token that ends a text; this tokenizer has none.",
            where="readout.kind",
            fix="Give the tokenizer an eos_token, or use readout.kind=ranking with label words.",
        )
    return encoder.end_id


def _write(begin: Fill, end: tuple[int, ...], most: int, is_cut: bool, answer: tuple[int, ...], name: str) -> Fill:
    """The slot with a known answer in it, every token of which is predicted, the end token included."""
    written = (*answer, *end)
    if is_cut and len(written) > most:
        written = (*written[: most - 1], end[0])
    if len(written) > most:
        raise TemplateError(
            f"the answer has {len(written)} tokens, its end token included; the model may write {most}.",
            where=name,
            fix=f"Set readout.max_new_tokens={len(written)} or more, or shorten the answer.",
        )
    first = begin.reads[0]
    reads = tuple(range(first, first + len(written)))
    if begin.decoder:
        return Fill(begin.ids, reads, begin.decoder + written[:-1], written)
    return Fill(written[:-1], reads, targets=written, is_last=True)
