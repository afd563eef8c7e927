"""BitFit (Ben Zaken, Goldberg and Ravfogel 2022, arXiv 2106.10199): the biases of the backbone and nothing else.

    h = W x + b        W frozen, b trained: of every linear layer and every norm that has one

Parameters: about 0.1 % of a BERT; a model without biases (Llama, T5) has none to train, which is an error. Weight decay
spares them, as it does all vectors of a trained backbone.

Deviations: the paper trains a classifier on the pooled [CLS] beside the biases; here the readout decides, a head or
label words. Biases of the vocabulary head are trained where the readout reads through it. The paper's smaller variant
(query and second feed-forward biases only) is not here.
"""

from __future__ import annotations

from typing import Any, final

from trimtab.errors import ConfigError
from trimtab.registry import tunings


@final
@tunings.register("biases")
class Biases:
    """The biases alone (BitFit, Ben Zaken et al. 2022)."""

    def open(self, model: Any) -> None:
        """Parameters that are called `bias` require gradients."""
        found = [p for name, p in model.named_parameters() if name.split(".")[-1] == "bias"]
        if not found:
            raise ConfigError(
                f"a model of the type {model.config.model_type!r} has no biases to train.",
                where="backbone.tuning.kind",
                fix="Use backbone.tuning=lora, or all.",
            )
        for parameter in found:
            parameter.requires_grad_(True)
