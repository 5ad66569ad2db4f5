from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier

from medray.imaging.intensity import brain_mask, whitened
from medray.imaging.types import Volume
from medray.imaging.volume import read_volume
from medray.imaging.volume_grid import axis_codes, same_grid
from medray.metrics.change import ChangeRules, changes
from medray.metrics.lesions import Components
from medray.metrics.overlap import Overlap
from medray.systems.lesion.phantom_brain import CHANNELS
from medray.systems.lesion.phantoms import COLUMNS, PhantomPatients, PhantomSpec, patient, visits

SPEC = PhantomSpec(patients=4)


def written(folder: Path, spec: PhantomSpec = SPEC) -> Path:
    phantoms = PhantomPatients(spec)
    rows = [phantoms.write(folder, piece) for piece in reversed(phantoms.pieces(folder))]
    files, labels = phantoms.finish(folder, rows)
    assert files == labels
    return Path(files)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("phantoms"))


def scans(table: Path) -> dict[tuple[str, str], dict[str, Volume]]:
    rows = pd.read_csv(table).to_dict("records")
    return {
        (row["patient"], row["visit"]): {
            name: read_volume((table.parent / row[name]).read_bytes()) for name in (*CHANNELS, "mask")
        }
        for row in rows
    }


def test_the_table_has_a_row_a_visit_and_relative_paths_in_the_layout_of_bids(table: Path) -> None:
    rows = pd.read_csv(table)
    assert tuple(rows.columns) == COLUMNS == ("patient", "visit", "flair", "t1", "t1c", "t2", "mask")
    assert list(zip(rows["patient"], rows["visit"], strict=True)) == [
        ("sub-01", "ses-1"), ("sub-02", "ses-1"), ("sub-02", "ses-2"), ("sub-03", "ses-1"), ("sub-04", "ses-1"),
        ("sub-04", "ses-2"),
    ]  # fmt: skip
    assert rows["t1c"][2] == "sub-02/ses-2/anat/sub-02_ses-2_ce-gadolinium_T1w.nii.gz"
    assert rows["mask"][0] == "derivatives/masks/sub-01/ses-1/anat/sub-01_ses-1_label-lesion_mask.nii.gz"
    assert (table.parent / "dataset_description.json").exists()


def test_channels_are_a_brain_with_values_below_0_in_it_and_0_around_it(table: Path) -> None:
    for scan in scans(table).values():
        mask = scan.pop("mask")
        brain = brain_mask([volume.voxels for volume in scan.values()])
        assert 0.1 < brain.mean() < 0.4
        assert not brain[0].any()
        assert set(np.unique(mask.voxels)) == {0, 1}
        assert mask.voxels.mean() < 0.01 * 2.5
        assert not mask.voxels[~brain].any()
        for volume in scan.values():
            assert same_grid(volume, mask)
            assert axis_codes(volume) == "LAS"
            assert np.array_equal(volume.voxels != 0, brain)
        assert (scan["flair"].voxels < 0).sum() > 100


def test_lesions_stand_out_in_the_channels_together_and_look_alikes_in_one(table: Path) -> None:
    kept: dict[str, list[float]] = {}
    for (name, visit), scan in scans(table).items():
        brain, _ = patient(SPEC, int(name[-2:]))
        truth = scan["mask"].voxels > 0
        white = (brain.white > 0.9) & ~truth
        inside = {channel: whitened(scan[channel].voxels, brain.head) for channel in CHANNELS}
        for what, where in {
            "lesion": truth,
            "plexus": brain.plexus > 0.8,
            "vessel": brain.vessels > 0.6,
            "artefact": brain.artefacts > 0.8,
        }.items():
            for channel in CHANNELS:
                kept.setdefault(f"{what} {channel}", []).append(
                    float(inside[channel][where & ~(truth & (what != "lesion"))].mean() - inside[channel][white].mean())
                )
        assert visit in {"ses-1", "ses-2"}
    over = {key: np.mean(values) for key, values in kept.items()}
    assert over["lesion flair"] > 1
    assert over["lesion t2"] > 1
    assert over["lesion t1"] < -0.8
    assert over["plexus flair"] > 1
    assert over["plexus t2"] < over["lesion t2"] - 0.8
    assert over["artefact flair"] > 1
    assert max(abs(over["artefact t1"]), abs(over["artefact t2"])) < 0.3
    assert over["vessel t1c"] > 1
    assert over["vessel flair"] < 0.3


def test_no_threshold_of_flair_finds_what_the_channels_together_find(table: Path) -> None:
    """Voxel by voxel, learned on one patient: FLAIR's best threshold, chosen on the truth, against all channels."""
    found = scans(table)
    known, other = (found[key] for key in (("sub-01", "ses-1"), ("sub-03", "ses-1")))
    examples = {}
    for name, scan in {"known": known, "other": other}.items():
        brain = scan["flair"].voxels != 0
        smooth = [ndimage.gaussian_filter(whitened(scan[channel].voxels, brain), 0.7)[brain] for channel in CHANNELS]
        examples[name] = np.stack(smooth, axis=1), scan["mask"].voxels[brain] > 0
    trees = HistGradientBoostingClassifier(max_iter=40, random_state=0).fit(*examples["known"])
    values, truth = examples["other"]
    alone = max(Overlap.of(truth, values[:, 0] > level).dice for level in np.linspace(0.5, 4, 71))
    together = Overlap.of(truth, trees.predict(values)).dice
    assert alone < 0.7
    assert together > alone + 0.05, (alone, together)


def test_what_becomes_of_each_lesion_is_as_it_was_drawn(table: Path) -> None:
    found = scans(table)
    rules = ChangeRules(least_mm3=0, enlarged_share=0.5)
    expected = {"stays": "stable", "grows": "enlarged", "vanishes": "vanished", "new": "new"}
    for number in (2, 4):
        name = f"sub-{number:02d}"
        _, lesions = patient(SPEC, number)
        one, two = (found[name, visit]["mask"] for visit in ("ses-1", "ses-2"))
        assert visits(number) == 2
        assert len(Components.of(one.voxels > 0, 8.0)) == sum(lesion.at(1) is not None for lesion in lesions)
        kinds = Counter(change.kind for change in changes(one.voxels > 0, two.voxels > 0, one.voxel_mm3, rules))
        assert kinds == Counter(expected[lesion.fate] for lesion in lesions)
        assert {"stable", "enlarged", "vanished", "new"} == set(kinds)


def test_some_lesions_take_up_contrast() -> None:
    lesions = [lesion for number in range(1, 13) for lesion in patient(PhantomSpec(), number)[1]]
    assert 0.1 < np.mean([lesion.enhances for lesion in lesions]) < 0.5


def test_the_same_numbers_give_the_same_bytes_and_a_finished_folder_is_kept(table: Path, tmp_path: Path) -> None:
    def sums(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    written(tmp_path)
    assert sums(tmp_path) == sums(table.parent)
    phantoms = PhantomPatients(SPEC)
    assert phantoms.pieces(tmp_path) == []
    assert phantoms.finish(tmp_path, []) == (str(tmp_path / "table.csv"),) * 2
    with pytest.raises(ValueError, match="another specification; choose an empty folder"):
        PhantomPatients(PhantomSpec(patients=4, seed=1)).pieces(tmp_path)


def test_a_set_that_was_cut_off_is_written_whole(tmp_path: Path) -> None:
    phantoms = PhantomPatients(PhantomSpec(patients=1))
    phantoms.write(tmp_path, phantoms.pieces(tmp_path)[0])
    assert phantoms.pieces(tmp_path) == [1]
