"""What happens where something is wrong, as the code and the numbers show; the only prose of the page that is not
made of results. It says nothing of cells that are right: text without a wrong cell is not shown."""

from __future__ import annotations

DIRECT = (
    "PEFT has no task type for masked language models or multiple choice. What works by hand is measured: "
    "`FEATURE_EXTRACTION` around a masked language model, its logits read at the mask behind those of the prompt, and "
    "a sequence classifier with one output whose choices stand one under the other. `CAUSAL_LM` around a masked "
    "language model, and any task type around `AutoModelForMultipleChoice`, raise. So does `TOKEN_CLS` with prompt "
    "tuning and P-tuning, unless labels are padded by hand, which is not documented and not counted.",
)

HAPPENS = {
    ("peft", "effect"): (
        "the model's forward pass takes the prefix as a keyword that it does not know, and drops it; every prompt says "
        "the same."
    ),
    ("peft", "gradient"): (
        "on encoder-decoders prompt tuning and P-tuning make a second half of virtual tokens for the decoder, which "
        "nothing reads. Prefix tuning makes keys and values for all layers, of which the layers of the decoder share "
        "the first; the others are not used."
    ),
    ("peft", "checkpointing"): "no gradient arrives, as recomputed layers drop the cache that the prefix is in.",
    ("peft", "own position"): (
        "the prompt stands before [CLS], and the head goes on reading position 0: the first virtual token."
    ),
    (
        "peft",
        "span positions",
    ): "start and end are taken of the sequence with the prompt, without being moved behind it.",
    ("peft", "right pads"): (
        "sequence classifiers of causal models look for the last token in `input_ids`, which are not passed on, and "
        "read a pad."
    ),
    ("peft", "left pads"): (
        "the prompt stands before the pads, and given positions are ignored: text and prompt are as far apart as there "
        "are pads. `PeftModelForQuestionAnswering` drops positions without a word, with a prefix, too."
    ),
    ("peft", "left pads, written"): "as above; so batches of different lengths are written otherwise than single rows.",
    ("peft", "mixed batch"): "`adapter_names` is taken and ignored: every row has the active prompt.",
    ("peft", "off, written"): "`generate` of encoder-decoders does not look whether the adapter is off.",
    ("peft", "static cache"): (
        "the prefix takes the place of the cache; the mask of the first step was made for the empty one, and hides the "
        "prefix but for a column."
    ),
    ("peft", "best checkpoint"): (
        "what is saved is the prompt that P-tuning's network has made; it is loaded into the embedding in front of the "
        "network, and goes through it again."
    ),
    ("peft", "resume"): "as above: training goes on from a prompt that went through the network twice.",
    ("peft", "trains"): "the loss does not fall.",
}
