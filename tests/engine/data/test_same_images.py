"""One image under two patients, which a hospital's archive has: both stay in one fold, and the user hears of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chest_films import noise, write_png
from ingested import ingested

from medray.engine.data.inputs import Input
from medray.shards.store import Store
from medray.systems.chest.system import FILMS


def test_two_patients_with_one_image_stay_in_one_fold(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["image,patient,Mass"]
    for i in range(24):
        write_png(tmp_path / "films" / f"f{i}.png", noise(i if i != 23 else 0))  # p23 has p0's film
        lines.append(f"f{i}.png,p{i},{i % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    files = Store(tmp_path / "films")
    labels = FILMS.labels_for(FILMS.read_labels(str(tmp_path / "labels.csv")), FILMS.source)
    one = Input("", files, files.files(), lambda scan: FILMS.assemble(scan, labels))
    found = ingested(tmp_path, FILMS.source, [one], list(FILMS.columns), FILMS.strata)
    fold = dict(zip(found.private["patient_id"], found.private["item_id"], strict=True))
    assert len(fold) == 24
    by_patient = found.index.drop_duplicates("patient_id").set_index("patient_id")
    assert by_patient["group"].nunique() == 23
    twins = by_patient.groupby("group").filter(lambda own: len(own) > 1)
    assert len(twins) == 2
    assert twins["fold"].nunique() == 1
    assert {*np.unique(by_patient["fold"])} == {0, 1}
    assert "the same under several patients: 1, of 2 patients, such as image-" in capsys.readouterr().err
