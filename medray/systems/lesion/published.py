"""Published figures, for orientation. None of them is of the scans of a report."""

from __future__ import annotations

PUBLISHED = [
    {
        "system": "Tiramisu 2.5D (Zhang et al. 2019)", "scans": "ISBI 2015 test set",
        "figures": "score 93.36, Dice .64; its focal variant Dice .693, LTPR .602",
    },
    {"system": "nnU-Net", "scans": "ISBI 2015 test set", "figures": "score 93.03, Dice .68, PPV .86, LTPR .54, LFPR .16"},
    {
        "system": "nnU-Net, SegResNet, SwinUNETR (PMLR 340, 2026)", "scans": "24 of MSSEG-1, 1,172 lesions",
        "figures": "Dice .713, .713, .708",
    },
    {"system": "LST-AI", "scans": "MSSEG-1", "figures": "Dice .65, lesion F1 .63"},
]  # fmt: skip
