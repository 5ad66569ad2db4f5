"""What training takes of a GPU's memory, counted off the network: nothing is computed, and no GPU is asked."""

from __future__ import annotations

from torch import Tensor, nn

OVERHEAD = 1.5
"""Over what is counted: gradients of activations, workspaces of convolutions, fragments. A rule of thumb."""
OF_WEIGHTS = 16
"""Bytes a weight: itself, its gradient and Adam's two moments in fp32."""
OF_FROZEN = 4
"""Bytes of one that is not trained."""


def training_gigabytes(network: nn.Module, inputs: Tensor, batch_size: int, value_bytes: int) -> float:
    """About what one step on a batch takes: the output of every layer, which waits for the backward pass, and the weights.
    Layers that are frozen, and none before them is trained, keep nothing.

    Args:
        network: on torch's "meta" device, where tensors have shapes and no values.
        inputs: some examples, on that device too.
        value_bytes: of an activation: 2 in mixed precision, 4 in fp32.
    """
    found = []

    def count(module: nn.Module, given: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad and not getattr(module, "inplace", False):
            found.append(output.numel())

    layers = [m for m in network.modules() if not any(m.children())]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    network.train()(inputs)
    for hook in hooks:
        hook.remove()
    activations = sum(found) / len(inputs) * batch_size * value_bytes
    weights = sum(p.numel() * (OF_WEIGHTS if p.requires_grad else OF_FROZEN) for p in network.parameters())
    return OVERHEAD * (activations + weights) / 1e9
