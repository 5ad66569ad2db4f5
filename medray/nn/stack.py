"""A bidirectional LSTM over a stack of embedded elements: each answer is informed by its neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class StackLSTM(nn.Module):
    """Features of every element of a stack → logits of every element.

    Each element comes as its feature and the differences to the element before and after it (0 at an end of the
    stack). An embedding of the three goes into the LSTM and past it: their sum feeds the last layer.

    Args:
        features: of an element. hidden: units of the LSTM in each direction. classes: logits of an element.
    """

    def __init__(self, features: int, hidden: int, layers: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(3 * features)
        self.embedding = nn.Linear(3 * features, 2 * hidden)
        # a module a layer: of one for all, cuDNN seeds the dropout between them once a process, and a resumed run would not
        # equal an uninterrupted one
        self.lstm = nn.ModuleList(
            nn.LSTM(2 * hidden, hidden, batch_first=True, bidirectional=True) for _ in range(layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits of stacks.

        Args:
            features: (batch, length, features), padded at the end.
            lengths: (batch,) int64, each at least 1; on the CPU, where torch plans the steps of an LSTM.
        Returns:
            (batch, length, classes), 0 at padded places.
        """
        length = features.shape[1]
        there = _on(lengths, features.device)
        real = (torch.arange(length, device=features.device) < there.unsqueeze(1)).unsqueeze(2).float()
        features = features.float() * real
        before = torch.cat([features[:, :1], features[:, :-1]], dim=1)
        after = torch.cat([features[:, 1:], features[:, -1:]], dim=1)
        last = torch.arange(length, device=features.device) == (there - 1).unsqueeze(1)
        after = torch.where(last.unsqueeze(2), features, after)
        joined = torch.cat([features, features - before, features - after], dim=2)
        embedded = self.dropout(torch.relu(self.embedding(self.norm(joined))))
        # torch sorts stacks by itself too, but waits for the copy of their order to the device
        sorted_lengths, order = torch.sort(lengths, descending=True)
        back = _on(torch.argsort(order), features.device)
        packed = pack_padded_sequence(embedded[_on(order, features.device)], sorted_lengths, batch_first=True)
        for number, layer in enumerate(self.lstm):
            packed = layer(packed if number == 0 else packed._replace(data=self.dropout(packed.data)))[0]
        informed, _ = pad_packed_sequence(packed, batch_first=True, total_length=length)
        informed = informed[back]
        logits: Tensor = self.head(self.dropout(informed + embedded))
        return logits * real


def reverse(values: Tensor, lengths: Tensor) -> Tensor:
    """Each stack upside down, its padding still at the end.

    Args:
        values: (batch, length, anything). lengths: (batch,), on the CPU.
    """
    place = torch.arange(values.shape[1], device=values.device).expand(values.shape[:2])
    lengths = _on(lengths, values.device).unsqueeze(1)
    place = torch.where(place < lengths, lengths - 1 - place, place)
    return values.gather(1, place.unsqueeze(2).expand_as(values))


def _on(values: Tensor, device: torch.device) -> Tensor:
    """A few numbers on their way from the CPU to the device; nothing waits for them."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values
