"""Learning curves of many networks."""

from __future__ import annotations

from typing import Any

from medray.report.charts import learning_curves


def history(epochs: int, rate: float, shift: float = 0.0) -> list[dict[str, Any]]:
    return [
        {"epoch": n, "system": {}, "metrics": {"train_loss": 1 / n, "learning_rate": rate * (1 - n / epochs) + shift}}
        for n in range(1, epochs + 1)
    ]


def test_many_networks_share_one_chart_of_learning_rates() -> None:
    histories = {f"masks/fold{k}": history(4, 1e-2) for k in (0, 1)}
    for model in range(6):  # not to the bit: of one sex there are fewer steps
        histories |= {f"net{model}/fold{k}": history(8, 1e-3, shift=1e-6 * model) for k in (0, 1)}
    figure = learning_curves(histories, "")
    shown = [axis for axis in figure.axes if axis.get_visible()]
    titles = [axis.get_title(loc="left") for axis in shown]
    assert titles == ["masks: loss", *(f"net{model}: loss" for model in range(6)), "learning rate"]
    assert [len(axis.lines) for axis in shown[:-1]] == [2] * 7
    legend = shown[-1].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["masks", "net0 and 5 more"]
    assert figure.get_figheight() < 8
    few = learning_curves({name: own for name, own in histories.items() if name < "net2"}, "")
    assert [axis.get_title(loc="left") for axis in few.axes].count("learning rate") == 3  # a row each, as ever


def test_losses_of_several_turns_and_dice_on_other_rows_are_drawn() -> None:
    entries = [
        {"epoch": n, "system": {}, "metrics": {
            "train_networks_loss": 1 / n, "train_coder_loss": 2 / n, "train_networks_dice_loss": 3 / n,  # a part
                "train_networks_gradient_norm": 5.0, "train_coder_gradient_norm": 4.0,
            "held_out_one_minus_dice": 0.5, "held_out_dice": 0.5, "learning_rate": 1e-3,
        }}
        for n in (1, 2)
    ]  # fmt: skip
    loss, rate = learning_curves({"joint/fold0": entries}, "").axes
    assert [line.get_label() for line in loss.lines] == [
        "fold 0, training networks", "fold 0, training coder", "fold 0, held out",
    ]  # fmt: skip
    assert len(rate.lines) == 1
