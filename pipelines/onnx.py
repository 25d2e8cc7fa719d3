"""ONNX: write a model, make it int8, run it. Needs the packages of the extra `onnx`."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distill.errors import ModelError
from pipelines.score import Inputs, evaluating, head_output, model_inputs

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FILE = "model.onnx"
ONE_FILE = 1_500_000_000
"""Bytes of weights up to which they lie in the ONNX file itself, which cannot exceed 2 GiB."""


def require(where: str) -> None:
    """Raise `ModelError` where a package is missing."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ModelError(f"{where}: {', '.join(missing)} not installed; pip install 'distill-pipeline[onnx]'")


def write(model: PreTrainedModel, example: Inputs, path: Path) -> None:
    """Write a model with free batch size and length; it takes what the model takes and gives what `head_output` gives.

    example: two or more rows of two or more tokens, so that no size is taken for a constant 1.
    """
    inputs = model_inputs(model, example)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    with _quietly(), evaluating(model):
        torch.onnx.export(
            _Positional(model, tuple(inputs)).eval(),
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=["output"],
            dynamic_shapes=(tuple({0: "batch", 1: "length"} for _ in inputs),),
            dynamo=True,
            external_data=weights > ONE_FILE,
            verbose=False,
        )


def quantise(source: Path, target: Path) -> None:
    """Write the int8 form: weights of matrix products and embeddings as int8 per channel, activations on the fly.

    Weights use 7 of the 8 bits: with all 8, processors without VNNI add up products beyond 16 bits and clip them.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source)
    del graph.graph.value_info[:]  # shapes of weights the quantiser transposes; it infers them again
    with _quietly():
        quantize_dynamic(graph, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)


def runner(path: Path) -> Callable[[Inputs], Tensor]:
    """Return a function that runs an ONNX file on a batch, on the CPU with as many threads as torch has.

    A batch without token types has those of a single text, 0.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(batch: Inputs) -> Tensor:
        types = {"token_type_ids": torch.zeros_like(batch["input_ids"])}
        given = {**types, **batch}
        (output,) = session.run(None, {name: given[name].cpu().numpy() for name in names})
        return torch.from_numpy(output)

    return run


class _Positional(nn.Module):
    """A model that takes its inputs in a given order, as an exported graph does."""

    def __init__(self, model: PreTrainedModel, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *tensors: Tensor) -> Tensor:
        """Run the model on its inputs, in the order of their names."""
        return head_output(self.model, dict(zip(self.names, tensors, strict=True)))


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the exporters' advice on their own insides off the screen; what they cannot do, they raise."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
