"""A model card (Mitchell and others 2019, FAccT: 220-229): what a model is for, what it rests on, and what is not known of it."""

from __future__ import annotations

from collections.abc import Sequence

from medray.report.about import About
from medray.report.sections import listed, versions

CARD = "model_card.md"
_LIMITS = (
    "It is no medical device, and has been scored on held-out patients of its own data only: what it does on other scanners, "
    "hospitals and patients is not known before it has been tried there.",
    "Figures are of networks that have not seen the patient, one a fold. New images are answered by the average of the folds' "
    "networks, which is another predictor and has not been scored.",
    "Intervals are over patients. They leave out what another training, with another seed or on another machine, would change.",
    "Labels are taken as they were given: errors in them are learned, and count as truth in the figures.",
)


def card(title: str, purpose: str, about: About, figures: Sequence[str]) -> str:
    """The text, in Markdown.

    Args:
        purpose: a sentence that says what goes in and what comes out.
        figures: as lines for a terminal.
    """
    lines = [f"# Model card: {title}", "", *(f"**{one}**\n" for one in about.notices)]
    lines += ["## What it is for", "", f"{purpose} For research: whoever uses it for patients answers for that.", ""]
    lines += ["## Data", "", *_flow(about), ""]
    lines += ["The reference standard is the labels that were given with the files.", ""]
    lines += ["## Figures on held-out patients", "", "```", *figures, "```", ""]
    lines += ["## Limits", "", *(f"- {one}" for one in _LIMITS), ""]
    settings = about.settings | {f"version of {name}": number for name, number in versions().items()}
    lines += ["## How it was made", "", "| setting | value |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in settings.items()]
    return "\n".join(lines) + "\n"


def _flow(about: About) -> list[str]:
    """From files to patients, step by step, as TRIPOD+AI (BMJ 2024; 385: e078378) asks."""
    status = about.inventory["status"].value_counts()
    index, folds = about.index, about.index["fold"]
    aside = [f"{count:,} {name}" for name, count in status.items() if name not in ("ok", "repaired", "unlabelled")]
    used = int(status.reindex(["ok", "repaired", "unlabelled"]).fillna(0).sum())
    steps = [
        f"{len(about.inventory):,} files or frames were found",
        *([f"left out: {', '.join(aside)} (`inventory.parquet` has each reason)"] if aside else []),
        f"{used:,} were used, as {len(index):,} rows",
        *([f"{index['study_id'].nunique():,} studies"] if "study_id" in index else []),
        f"{index['patient_id'].nunique():,} patients",
        *(
            f"fold {fold}: {len(own):,} rows of {own['patient_id'].nunique():,} patients"
            for fold, own in index[folds >= 0].groupby(folds[folds >= 0])
        ),
    ]
    return [f"{i}. {step}" for i, step in enumerate(steps, start=1)]


def _cell(value: object) -> str:
    text = listed(value) if isinstance(value, list | tuple) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
