"""Whether a model can be trained here: each layer that cannot be is named before training."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clients import HonestClient
from clients.training import logits
from strategies.vectors import STATISTICS

from ..config import one_line
from ..errors import UserError

TRAVELLING = (torch.float16, torch.float32, torch.float64)
"""What numpy has, in which models travel."""

ROWS = 32
"""That are tried at most."""

TEXTS = "; the data are texts of tokens, int64 (if they are a table of numbers: dataset.kind=table)"
"""What is added to an error of a layer that was not made for them."""


def validate(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    classes: int,
    sizes: list[int],
    training: Mapping[str, Any],
    strategy: Mapping[str, Any],
) -> None:
    """Refuse a model with layers that averaging, the training or the defense cannot deal with.

    Parameters
    ----------
    model : torch.nn.Module
        It stays as it is; a copy takes a step.
    inputs, labels : Tensor of shape (n, ...) and (n,)
        Samples of a client.
    classes : int
        C.
    sizes : list of int
        Samples of each client.
    training : mapping
        Arguments of `clients.HonestClient`.
    strategy : mapping
        Its config node.

    Raises
    ------
    UserError
        In one line, all that was found.
    """
    found = [*_does_not_travel(model)]
    if not found:
        found += _does_not_train(model, sizes)
        found += _is_judged_twice(model, strategy)
        found += _fails(model, inputs, labels, classes, training, strategy)
    if found:
        raise UserError(f"model {type(model).__name__}: {'; '.join(found)}")


def _does_not_travel(model: nn.Module) -> Iterator[str]:
    """Name what cannot be sent; nothing else can be asked of such a model."""
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            yield f"{name} has no shape yet, which lazy layers learn from a first batch"
        elif tensor.is_complex():
            yield f"{name} is {_kind(tensor)}, and averages and norms are of real numbers"
        elif tensor.is_floating_point() and tensor.dtype not in TRAVELLING:
            allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in TRAVELLING)
            yield f"{name} is {_kind(tensor)}, which numpy does not have: allowed are {allowed}"
    lazy = any(map(nn.parameter.is_lazy, model.parameters()))
    for name, value in {} if lazy else model.state_dict().items():
        if not isinstance(value, Tensor):
            yield f"{name} is a {type(value).__name__}, and models are sent as arrays"


def _does_not_train(model: nn.Module, sizes: list[int]) -> Iterator[str]:
    if not any(parameter.requires_grad for parameter in model.parameters()):
        yield "no parameter requires a gradient, so that nothing trains"
    alone = sizes.count(1)
    layers = [_layer(*named) for named in model.named_modules() if isinstance(named[1], _BatchNorm)]
    if alone and layers:
        needs = "needs" if len(layers) == 1 else "need"
        yield (
            f"{', '.join(layers)} {needs} 2 samples or more, and {alone} of {len(sizes)} clients "
            "have 1"
        )


def _is_judged_twice(model: nn.Module, strategy: Mapping[str, Any]) -> Iterator[str]:
    """Name tensors that have two names, by which a defense would count them twice."""
    if _averages(strategy):
        return
    names: dict[Tensor, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = names.setdefault(parameter, name)
        if first != name:
            yield (
                f"{first} and {name} are one tensor, which the strategy would judge and change "
                "as two (strategy=fedavg takes it)"
            )


def _fails(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    classes: int,
    training: Mapping[str, Any],
    strategy: Mapping[str, Any],
) -> Iterator[str]:
    """Let a copy take a step, as a client would, and name where that goes wrong."""
    tried = deepcopy(model)
    if not any(parameter.requires_grad for parameter in tried.parameters()):
        return
    # With batches of 1 a last row would join the one before it, if the model has BatchNorm.
    rows = max(3, min(ROWS, training["batch_size"]))
    client = HonestClient(tried, inputs[:rows], labels[:rows], **{**training, "epochs": 1})
    watch = _Watch()
    handles = [*watch.over(tried)]
    before = {name: buffer.clone() for name, buffer in tried.named_buffers()}
    try:
        client.fit(1)
    except Exception as error:  # of whatever the model, the optimizer or torch raises
        if watch.width in (None, classes):
            texts = "" if inputs.is_floating_point() else TEXTS
            yield f"{watch.where()}: {one_line(error)}{texts}"
    finally:
        for handle in handles:
            handle.remove()
    if watch.width not in (None, classes):
        yield f"{watch.last} returns {watch.width} values a row, the data have {classes} classes"
    if watch.broken:
        yield f"{watch.broken} returns what is not finite on the first batch"
    patterns = (*STATISTICS, *_statistics(strategy))
    for name, buffer in tried.named_buffers() if not _averages(strategy) else ():
        moved = buffer.is_floating_point() and not torch.equal(buffer, before[name])
        if moved and not any(fnmatchcase(name, pattern) for pattern in patterns):
            yield (
                f"{name} changes in training and is no parameter, but the strategy would judge it "
                "as one: name it in +strategy.statistics=[...]"
            )


@dataclass
class _Watch:
    """Sees which layer works on a batch."""

    inside: list[str] = field(default_factory=list)
    last: str = ""
    broken: str = ""
    width: int | None = None

    def over(self, model: nn.Module) -> Iterator[Any]:
        """Look at every layer, and yield the handles to stop with."""
        for name, module in model.named_modules():
            layer = _layer(name, module)
            yield module.register_forward_pre_hook(
                lambda *_, layer=layer: self.inside.append(layer)
            )
            yield module.register_forward_hook(self._after(layer))
        yield model.register_forward_hook(self._at_the_end)

    def where(self) -> str:
        """Say where an error came from."""
        return self.inside[-1] if self.inside else "a step on the first batch"

    def _after(self, layer: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            self.inside.pop()
            if self.inside or not self.last:  # the whole model comes last, but has no weights
                self.last = layer
            found = isinstance(output, Tensor) and output.is_floating_point()
            first = self.width is None and not self.broken
            if found and first and not torch.isfinite(output).all():
                self.broken = layer

        return hook

    def _at_the_end(self, _: nn.Module, __: Any, output: Any) -> None:
        self.width = logits(output).shape[-1]


def _layer(name: str, module: nn.Module) -> str:
    return f"{name or 'the model'} ({type(module).__name__})"


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _averages(strategy: Mapping[str, Any]) -> bool:
    """Tell a strategy that averages, and does nothing else, from those that judge."""
    return str(strategy.get("_target_")).rpartition(".")[2] == "FedAvg"


def _statistics(strategy: Mapping[str, Any]) -> Iterator[str]:
    for name, value in strategy.items():
        if name == "statistics":
            yield from [value] if isinstance(value, str) else value
        elif isinstance(value, Mapping):
            yield from _statistics(value)
