"""What the number of workers changes in a network: the batch stays the same, but each worker sees a part of it only."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def synchronized(network: nn.Module) -> nn.Module:
    """The network with batch normalization over the whole batch; torch has it for GPUs only."""
    from timm.layers import convert_sync_batchnorm  # torch's own drops the activation that timm's layers hold

    converted: nn.Module = convert_sync_batchnorm(network)
    return converted


def depends_on_workers(network: nn.Module) -> list[str]:
    """What in a training step is each worker's own, in words; empty for a network that was shown to end alike."""
    found = []
    modules = list(network.modules())
    if any(isinstance(m, _NormBase) and m.track_running_stats and not isinstance(m, nn.SyncBatchNorm) for m in modules):
        found.append("batch normalization")
    # torch's dropout has p, its recurrent and attention layers dropout, timm's stochastic depth drop_prob
    rates = [getattr(m, name, 0) for m in modules for name in ("p", "dropout", "drop_prob")]
    if any(isinstance(rate, float) and rate > 0 for rate in rates):
        found.append("dropout")
    return found
