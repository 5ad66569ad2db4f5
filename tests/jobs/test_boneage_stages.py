"""The bone age job up to a stage, with one fold held out, and by the modern recipe, on a few drawn hands."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from boneage_hands import MODELS, NO_HAND, STAGES, TWO_HANDS, Hands, drawn_hands, job_in_process, said_by

pytestmark = pytest.mark.slow
AS_PHANTOM = (
    "--segmentation.batch-size", 8, "--segmentation.width", 8, "--segmentation.learning-rate", 3e-3,
    "--segmentation.rotate-deg", 30.0, "--keypoints.side-px", 64, "--keypoints.channels", 8, 16, 32, 64,
    "--keypoints.dense", 256, "--keypoints.dropout", 0.1, "--keypoints.batch-size", 8, "--keypoints.learning-rate", 3e-3,
    "--keypoints.rotate-deg", 25.0, "--keypoints.zoom", 0.2,
)  # fmt: skip
"""The stages before the ages as the recipe phantom has them: another recipe goes on from its masks and points."""
REFUSED = ["film_id", "fold", "held_out", "stage", "reason"]


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Hands:
    return drawn_hands(tmp_path_factory.mktemp("in"))


@pytest.fixture(scope="module")
def out(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all tests here, which go on with each other's stages."""
    return tmp_path_factory.mktemp("whole") / "out"


def refused_by(out: Path, name: str = "phantom") -> pd.DataFrame:
    return pd.read_csv(out / "models" / name / "refused.csv", dtype={"film_id": str})


def test_up_to_the_regions_it_lists_what_was_refused_and_then_goes_on(hands: Hands, out: Path) -> None:
    flags = hands.flags(out, "--models", *MODELS, "--train-folds", 0)
    status, said = job_in_process("boneage_cv", [*flags, "--until", "regions"])
    assert status == 0, said
    plan, rest = said.split("1. Shards and folds")
    assert "4 regions" in plan
    for later in ("train ", "phantom-", "ensemble", "report"):
        assert later not in plan
    assert "exports of VIA: points of 18 films (18 in the exports), outlines of 0 films" in rest
    table = refused_by(out)
    assert table.columns.tolist() == REFUSED
    assert {NO_HAND, TWO_HANDS} <= {*table["film_id"]}
    fold = pd.read_parquet(out / "folds.parquet").set_index("patient_id")["fold"]
    for film in (NO_HAND, TWO_HANDS):  # each is a patient of its own
        own = table.set_index("film_id").loc[film]
        assert (own["fold"], own["held_out"]) == (fold[film], fold[film] == 0)
    assert f"{len(table)} films refused by the stages so far; {out}/models/phantom/refused.csv names them" in rest
    assert "1 film" in rest.split("names them")[1]
    assert "segmentation, no hand was found on it" in rest
    assert "Ended after regions, as --until says." in rest
    assert "runs/" in rest.split("Ended after")[1]
    assert "The same command without --until goes on from here." in rest
    assert not (out / "models" / "phantom" / "films.csv").exists()

    said = said_by("boneage_cv", flags)
    assert "fold1 starts" not in said.split("5. Age networks")[0]  # what is there is kept
    films = pd.read_csv(out / "models" / "phantom" / "films.csv", dtype={"film_id": str})
    assert {*films["fold"]} == {0}
    assert refused_by(out).equals(table)
    counts = json.loads((out / "models" / "phantom" / "metrics.json").read_text())["counts"]
    held_out = int(table["held_out"].sum())
    assert (counts["refused"], counts["refused_in_training"]) == (held_out, len(table) - held_out)
    lost = len(table) - held_out
    assert lost > 0
    assert f"; {held_out} refused, and {lost} film" in said
    page = (out / "models" / "phantom" / "report.html").read_text()
    assert "of folds only learned from" in page


def test_the_modern_recipe_from_random_weights_told_the_sex(hands: Hands, out: Path) -> None:
    flags = [
        "--images", hands.images, "--labels", hands.labels, "--recipe", "modern", "--backbone", "resnet10t", "--no-pretrained",
        "--folds", 2, "--threads", 1, "--epochs", 1, "--scale", 0.05, "--batch-size", 8, "--inputs", "sex", "--public-ids",
        "--key-dir", hands.private, *STAGES, *AS_PHANTOM, "--out", out,
    ]  # fmt: skip
    said = said_by("boneage_cv", [*map(str, flags)])
    assert "segmentation/fold0 starts" not in said  # methods of one --out share the stages before
    films = pd.read_csv(out / "models" / "modern" / "films.csv", dtype={"film_id": str})
    assert films["A-regression-both"].notna().all()
    assert {*films["fold"]} == {0, 1}
    assert {*refused_by(out, "modern")["film_id"]} == {*refused_by(out)["film_id"]}
    assert len(films) + len(refused_by(out, "modern")) == 26
    method = json.loads((out / "models" / "modern" / "method.json").read_text())
    assert (method["task"]["backbone"], method["task"]["inputs"]) == ("resnet10t", ["sex"])
    assert "resnet10t" in (out / "models" / "modern" / "report.html").read_text()


def test_a_corrected_age_is_refused_before_anything_is_rewritten(hands: Hands, out: Path) -> None:
    ages = hands.labels / "ages.csv"
    flags, kept = hands.flags(out, "--models", *MODELS, "--train-folds", 0, "--until", "shards"), ages.read_text()
    said_by("boneage_cv", flags)
    (out / "runs" / "segmentation" / "fold0").mkdir(parents=True, exist_ok=True)  # where this test runs alone

    def left() -> dict[Path, bytes]:
        every = [*(out / "shards").rglob("*"), *out.glob("*.parquet"), *out.glob("*.json")]
        return {path: path.read_bytes() for path in every if path.is_file()}

    before = left()
    assert any(path.parent.parent.name == "shards" for path in before)
    ages.write_text(kept.replace("nohand,100,", "nohand,101,"))
    try:
        status, said = job_in_process("boneage_cv", flags)
    finally:
        ages.write_text(kept)
    assert status == 2
    assert "its runs have learned from other shards than these" in said
    assert left() == before
