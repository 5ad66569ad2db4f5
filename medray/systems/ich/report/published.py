"""Published results, and what each may be compared with."""

from __future__ import annotations

from dataclasses import dataclass

from medray.systems.ich.classes import CLASSES

VALIDATION, PRIVATE_BOARD, NOT_STATED = "validation folds", "private board", "not stated"


@dataclass(frozen=True)
class Published:
    system: str
    weighted_log_loss: str  # as printed
    on: str


RESULTS = (
    Published(
        "RSNA 2019 second place, 480 px, final stage: mean of folds 0, 1, 2 (.0562 .0578 .0560)", ".0567", VALIDATION
    ),
    Published("second place, 480 px, fold 0: LSTM with differences", ".0574", VALIDATION),
    Published("second place, 480 px, fold 0: LSTM-1024", ".05758", VALIDATION),
    Published("second place, 384 px, fold 0: LSTM-256", ".05811", VALIDATION),
    Published("second place, 384 px, fold 0: backbone with a mean over neighbours", ".06336", VALIDATION),
    Published("single SE-ResNeXt-50", ".071", NOT_STATED),
    Published("single EfficientNet-B3", ".076", NOT_STATED),
    Published("single Inception-v3", ".078", NOT_STATED),
    Published("single ResNeXt-101 32x8d", ".084", NOT_STATED),
    Published("second place, the final bag", ".044", PRIVATE_BOARD),
    Published("second place, one model on all data", ".04607", PRIVATE_BOARD),
    Published("first place", ".04383", PRIVATE_BOARD),
)

COMPARABLE = {
    VALIDATION: "yes, on the challenge's data: patients held out of training, as here",
    NOT_STATED: "no: on which slices is not stated; context only",
    PRIVATE_BOARD: "no: other test slices, and models trained on every fold",
}

FIRST_PLACE_AUC = dict(zip(CLASSES, (0.984, 0.992, 0.996, 0.985, 0.983, 0.988), strict=True))
"""First place's model on its paper's test set, not on validation folds."""

EXTERNAL_AUC = "On other hospitals' scans that model's AUC for any bleed was .964 (75 scans) and .949 (491); another group's model reached .842 on 1,372 local scans."
