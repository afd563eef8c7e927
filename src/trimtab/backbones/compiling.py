"""Compiled layers: `torch.compile` for every transformer layer of a frozen backbone.

All layers of a model share one graph, made for any number of rows and any length, so padding to other shapes compiles
nothing anew. Passes with and without gradient have one each, and so have those of one row and those without padding. A
pass in which keys and values of prompts enter the attention layers runs as it is written: those differ from layer to
layer.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from trimtab.backbones.attention import KEYWORD
from trimtab.backbones.checkpointing import recomputed_layers
from trimtab.errors import BackboneError, ConfigError

WHERE = "backbone.compile"


def compile_layers(model: Any, backend: str = "inductor") -> None:
    """Let the layers of a model run compiled, from their first pass on. Copies of the model run as they are written.

    Args:
        backend: of torch.compile; `eager` and `aot_eager` need no compiler and gain nothing.

    Raises:
        BackboneError: the model has no layers of its own, or there is no compiler.
    """
    layers = recomputed_layers(model)
    if not layers:
        raise BackboneError(
            f"{type(model).__name__} has no layers that can be compiled one by one.",
            where=WHERE,
            fix="Set backbone.compile: false.",
        )
    if backend == "inductor":
        _check_compiler(model.device.type)
    from torch._functorch import config

    config.donated_buffer = False  # penalties ask for the gradient of a pass more than once
    for layer in layers:
        layer.compile(backend=backend, dynamic=True)
        layer._compiled_call_impl = _without_passages(layer._compiled_call_impl, layer._call_impl)


def _without_passages(compiled: Callable[..., Any], written: Callable[..., Any]) -> Callable[..., Any]:
    """The compiled layer, or the layer as it is written where prompts enter its attention."""

    def call(*given: Any, **named: Any) -> Any:
        return (compiled if named.get(KEYWORD) is None else written)(*given, **named)

    return call


def _check_compiler(device: str) -> None:
    """Refuse to promise what cannot be compiled: torch writes C++ for CPUs and Triton for GPUs."""
    try:
        if device == "cpu":
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()
        else:
            import_module("triton")  # comes with torch for GPUs
    except (ImportError, RuntimeError) as error:
        lacking = "a C++ compiler, and none was found" if device == "cpu" else "Triton, which is not installed"
        fix = "Install g++ (or set CXX)" if device == "cpu" else "pip install triton"
        raise BackboneError(
            f"torch.compile needs {lacking}.", where=WHERE, fix=f"{fix}, or set backbone.compile: false."
        ) from error


def check_compiled(*, recomputes: bool, tunes: bool) -> None:
    """Refuse what compiled layers would silently not do.

    Raises:
        ConfigError: layers are to be recomputed, or the backbone is trained, which happens in a copy of its own.
    """
    asked = {"training.recompute_layers": recomputes, "training.learning_rates.backbone": tunes}
    for key, is_asked in asked.items():
        if is_asked:
            raise ConfigError(
                f"compiled layers belong to a frozen backbone whose passes are kept, and {key} asks for another.",
                where=WHERE,
                fix=f"Set backbone.compile: false, or leave out {key}.",
            )
