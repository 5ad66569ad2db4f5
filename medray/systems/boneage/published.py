"""Published mean absolute errors, months, for orientation: none of them is of the films of a report."""

from __future__ import annotations

HOLD_OUT = "1,000 training images that the source held out; the truth is the challenge's label"
TEST = "the challenge's 200 test images; the truth is the mean of six readers, of which two versions were issued"

SOURCE_TABLE: dict[str, dict[str, float]] = {
    "A": {"both regression": 8.08, "girls regression": 7.12},
    "C": {"both regression": 8.42, "girls regression": 6.79},
    "ensemble": {
        "both regression": 7.52,
        "boys regression": 6.30,
        "girls regression": 6.49,
        "boys classification": 6.16,
        "girls classification": 6.39,
    },
}
"""The source's (Iglovikov et al. 2018): region or ensemble of regions → "sexes head" → months. What it has not, we
were not given."""
SOURCE_ALL = 6.10
"""Its ensemble of all models."""

_OF_TEST = "figures of the same 200 images, where both name the same version of the truth"
PUBLISHED = [
    {
        "system": "the source (Iglovikov et al. 2018): VGG-style networks, three regions, two heads, by sex",
        "MAE, months": "6.10",
        "films and truth": HOLD_OUT,
        "compares with": "figures of the same 1,000 images only; never with one of the 200-image test",
    },
    {
        "system": "winners of the RSNA challenge, 2017",
        "MAE, months": "4.2 to 4.5",
        "films and truth": TEST,
        "compares with": _OF_TEST,
    },
    {
        "system": "Deeplasia (2023): three EfficientNets, sex as an input, the hand masked",
        "MAE, months": "3.87",
        "films and truth": TEST,
        "compares with": _OF_TEST,
    },
    {
        "system": "ConvNeXt, five folds, sex as an input (Bram et al. 2025)",
        "MAE, months": "3.68",
        "films and truth": TEST,
        "compares with": _OF_TEST,
    },
    {
        "system": "the same on the Digital Hand Atlas, without and with calendar age as an input",
        "MAE, months": "5.66, 4.65",
        "films and truth": "another population, another truth",
        "compares with": "figures of the Digital Hand Atlas",
    },
]

WHAT_COMPARES = (
    "None of these figures compares with one of this page unless it is of the same films and the same truth. A "
    "hold-out of training images has one label a film; the 200-image test has the mean of six readers, which errs "
    "less, and that truth was issued in two versions: a figure of it says which file it used. On a noisier truth "
    "the same model has the larger error."
)
