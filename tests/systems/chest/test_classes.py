from __future__ import annotations

import numpy as np
import pytest

from medray.systems.chest.classes import FINDINGS, GROUPS, finding_named, members
from medray.systems.chest.published import CHEXNET, PUBLISHED


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("Mass", "Mass"),
        ("pleural thickening", "Pleural_Thickening"),
        ("PLEURAL_THICKENING", "Pleural_Thickening"),
        ("Infiltrate", "Infiltration"),
        ("Pleural Effusion", "Effusion"),
        ("Masses", None),
        ("No Finding", None),
    ],
)
def test_a_finding_is_known_by_its_names(name: str, finding: str | None) -> None:
    assert finding_named(name) == finding


def test_targets_are_findings_groups_and_groups_of_ones_own() -> None:
    assert members("Edema") == ("Edema", ("Edema",))
    assert members("tumour") == ("tumour", ("Mass", "Nodule"))
    assert members("lump=mass|Nodule|Mass") == ("lump", ("Mass", "Nodule"))
    assert members("abnormal")[1] == FINDINGS
    assert all(set(of) <= set(FINDINGS) for of in GROUPS.values())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("Masss", r'"Masss" \(did you mean Mass\?\).*there are Atelectasis.*groups are abnormal, tumour'),
        ("tumor=Mass|Nodul", r'"Nodul" \(did you mean Nodule\?\)'),
        ("=Mass", "is no name for a group"),
        ("a b=Mass", "is no name for a group"),
        ("lump=", "no finding that medray knows"),
    ],
)
def test_a_target_that_there_is_not_is_one_line(target: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        members(target)
    assert "\n" not in str(error.value)


def test_chexnets_mean_is_that_of_its_fourteen() -> None:
    assert CHEXNET.auc is not None
    assert list(CHEXNET.auc) == list(FINDINGS)
    assert np.mean(list(CHEXNET.auc.values())) == pytest.approx(CHEXNET.mean_auc[0], abs=5e-5)
    assert all(low <= high for low, high in (p.mean_auc for p in PUBLISHED))
