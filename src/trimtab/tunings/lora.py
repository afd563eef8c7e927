"""LoRA (Hu et al. 2022, arXiv 2106.09685), through the library peft (the extra `lora`).

    h = W x + (alpha / r) B A x        W frozen;  A [r, in] random, B [out, r] zero at first, both trained

Parameters: r (in + out) for each adapted layer. The backbone is as it was before the first step, since B is zero.

Layers are peft's own choice for the model's type where none are named: queries and values in most, as in the paper.
Packs with no other run, as every trained backbone.

Deviations: no dropout on x.
"""

from __future__ import annotations

from typing import Annotated, Any, final

from pydantic import Field
from transformers.pytorch_utils import Conv1D

from trimtab.errors import ConfigError
from trimtab.registry import tunings


@final
@tunings.register("lora")
class Lora:
    """Low-rank updates beside the weights (Hu et al. 2022), with peft.

    Args:
        rank: r.
        alpha: the update is scaled by alpha / rank.
        layers: ends of the names of linear layers, such as `query`; none for peft's own choice for the model's type.
    """

    def __init__(
        self,
        *,
        rank: Annotated[int, Field(ge=1)] = 8,
        alpha: Annotated[int, Field(ge=1)] = 16,
        layers: list[str] = [],  # noqa: B006  (a schema default, never mutated)
    ) -> None:
        self.rank, self.alpha, self.layers = rank, alpha, tuple(layers)

    def open(self, model: Any) -> None:
        """Add A and B, which require gradients."""
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise ConfigError(
                "LoRA needs the library peft, which is not installed.",
                where="backbone.tuning.kind",
                fix="Install it: pip install 'trimtab[lora]'.",
            ) from None
        options = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=list(self.layers) or None,
            fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),  # GPT-2 writes W transposed
        )
        try:
            inject_adapter_in_model(options, model)
        except ValueError as error:
            linear = sorted({n.split(".")[-1] for n, m in model.named_modules() if type(m).__name__ == "Linear"})
            raise ConfigError(
                f"peft cannot adapt the layers {list(self.layers) or 'of its choice'} of a model of the type "
                f"{model.config.model_type!r}: {str(error).splitlines()[0]}",
                where="backbone.tuning.layers",
                fix=f"Name some of its linear layers: {', '.join(linear)}.",
            ) from None
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name)
