from __future__ import annotations

from dataclasses import replace

from medray.systems.fewlabel.chain import Chain, Ladder
from medray.systems.fewlabel.cost import cost_of, cost_table
from medray.systems.fewlabel.recipes import phantom

TASK = replace(phantom(), organs=("Liver", "Spleen", "Pancreas"), patch_DHW=(16, 16, 16))


def test_a_network_a_source_and_the_conditional_one_grow_and_the_others_do_not() -> None:
    rungs = ("apart", "marginal", "conditional")

    def costs(organs: int, sources: int) -> dict[str, dict[str, float]]:
        task = replace(TASK, organs=tuple("ABCDEFGH"[:organs]))
        table = cost_table(Chain("x", task, Ladder(rungs=rungs)), sources)
        return {str(row["network"]): row for row in table.to_dict("records")}

    few, many = costs(2, 2), costs(8, 8)
    for column in ("networks", "passes of a window", "weights, millions", "memory, MB"):
        assert many["apart"][column] > few["apart"][column], column
    assert (few["conditional"]["passes of a window"], many["conditional"]["passes of a window"]) == (2, 8)
    assert many["marginal"]["passes of a window"] == few["marginal"]["passes of a window"] == 1
    assert many["marginal"]["weights, millions"] < 1.1 * few["marginal"]["weights, millions"]
    assert many["apart"]["weights, millions"] > 3 * few["apart"]["weights, millions"]


def test_memory_of_layers_is_between_the_largest_output_and_all_of_them() -> None:
    import torch

    from medray.nn.volume_network import volume_network

    outputs = list[int]()
    network = volume_network(TASK.architecture, 1, 4, TASK.width, TASK.levels).eval()
    for module in network.modules():
        module.register_forward_hook(lambda module, given, output: outputs.append(output.nbytes))
    with torch.inference_mode():
        network(torch.zeros(1, 1, *TASK.patch_DHW))
    assert max(outputs) < cost_of(TASK, 1, 4).layers_mb * 1e6 < sum(outputs)
