"""What readers saw, and how far a model, or another reader, sees the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chest_films import write_png
from sklearn import metrics as sk

from medray.engine.derive.scan import scan_here
from medray.report import page
from medray.shards.pseudonym import Pseudonyms
from medray.shards.store import Store
from medray.systems.chest.decisions import decisions
from medray.systems.chest.inventory import assemble
from medray.systems.chest.readers import agreement, kappa, kappa_by_view, on_films, read_reader
from medray.systems.chest.report.sections import _agreement
from medray.systems.chest.source import Radiograph


def reader(
    tmp_path: Path, text: str, targets: tuple[str, ...] = ("tumour", "Edema"), name: str = "r.csv"
) -> pd.DataFrame:
    (tmp_path / name).write_text(text)
    return read_reader(str(tmp_path / name), targets)


def test_a_reader_answers_groups_by_name_or_by_members(tmp_path: Path) -> None:
    by_name = reader(tmp_path, "Image Index,Tumour,edema\na.png,1,0\nb.png,0,\n")
    assert by_name["tumour"].to_dict() == {"a": 1, "b": 0}
    assert np.isnan(by_name.loc["b", "Edema"])
    by_members = reader(tmp_path, "image,Mass,Nodule\na,0,1\nb,0,0\nc,0,\nd,1,\n")
    np.testing.assert_array_equal(by_members["tumour"], [1, 0, np.nan, 1])
    assert list(by_members.columns) == ["tumour"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,Lump\na,1\n", r'no column for any of tumour, Edema; "Lump"'),
        ("Mass,Nodule\n1,1\n", "no column names the images"),
        ("image,Edema\na,1\na.png,0\n", "1 images are given twice"),
        ("image,Edema\na,2\n", 'line 2: Edema is "2", neither 0 nor 1'),
    ],
)
def test_a_wrong_reader_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^--reader .*r.csv: {message}"):
        reader(tmp_path, text)


def test_kappa_is_cohens_over_the_films_that_both_answer() -> None:
    rng = np.random.default_rng(0)
    index = pd.Index([f"i{n}" for n in range(60)])
    first = pd.DataFrame({"Mass": rng.integers(0, 2, 60).astype(float), "Edema": 0.0}, index=index)
    second = first.copy()
    second.iloc[:12, 0] = 1 - second.iloc[:12, 0]
    second.iloc[50:, 0] = np.nan
    second = second.sample(frac=1, random_state=1)
    patients = pd.Series([f"p{n // 2}" for n in range(60)], index=index)
    found = kappa(first, second, patients)
    aligned = second.loc[index[:50], "Mass"]
    assert found["Mass"]["kappa"] == pytest.approx(sk.cohen_kappa_score(first["Mass"][:50], aligned))
    figure = found["Mass"]["figure"]
    assert figure["low"] < figure["value"] == found["Mass"]["kappa"] < figure["high"]
    assert (found["Mass"]["films"], found["Mass"]["agreement"]) == (50, pytest.approx(38 / 50))
    assert found["Edema"] == {"kappa": None, "films": 60, "agreement": 1.0, "reason": "both say 0 of every film"}
    apart = kappa(first, second.set_axis([f"x{n}" for n in range(60)]), patients)
    assert apart["Mass"]["reason"] == "no film is answered by both"
    views = pd.Series(["PA", "AP"] * 30, index=index)
    by_view = kappa_by_view(first, second, views, patients)
    assert by_view["PA"]["Mass"]["films"] == 25
    assert by_view["PA"] == kappa(first.iloc[::2], second, patients)


def table_of(films: int = 120, seed: int = 0) -> pd.DataFrame:
    """Predictions of two targets with the thresholds of two folds; Hernia has none."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(films)], "patient_id": [f"p{n}" for n in range(films)],
            "view": np.where(np.arange(films) % 3, "PA", "AP"),
            "p_Mass": rng.uniform(size=films), "p_Hernia": rng.uniform(size=films),
            "threshold_Mass": np.where(np.arange(films) % 2, 0.3, 0.6), "threshold_Hernia": np.nan,
        }
    )  # fmt: skip


def test_a_film_is_decided_by_its_own_threshold() -> None:
    table = table_of()
    made = decisions(table, {"Mass": 0.4, "Hernia": None})
    assert made["Hernia"].isna().all()
    np.testing.assert_array_equal(made["Mass"], (table["p_Mass"] >= 0.4).astype(float))
    each = decisions(table, {"Mass": table["threshold_Mass"].to_numpy()})
    np.testing.assert_array_equal(each["Mass"], (table["p_Mass"] >= table["threshold_Mass"]).astype(float))
    missing = np.where(np.arange(len(table)) < 5, np.nan, 0.5)
    assert decisions(table, {"Mass": missing})["Mass"].isna().sum() == 5


def test_agreement_is_of_the_model_with_each_reader_and_of_the_readers() -> None:
    table = table_of()
    index = pd.Index([*table["image_id"], "elsewhere"], name="image_id")
    rng = np.random.default_rng(1)
    one = pd.DataFrame({"Mass": rng.integers(0, 2, 121), "Hernia": rng.integers(0, 2, 121)}, index=index, dtype=float)
    other = one[["Mass"]].copy()
    other.iloc[:30, 0] = 1 - other.iloc[:30, 0]
    other = other.sample(frac=1, random_state=0)
    found = agreement(table, ("Mass", "Hernia"), [one, other])
    assert [pair["between"] for pair in found] == [
        ["model", "reader 1"],
        ["model", "reader 2"],
        ["reader 1", "reader 2"],
    ]
    says = (table["p_Mass"] >= table["threshold_Mass"]).astype(int)
    first, second, readers = (pair["targets"] for pair in found)
    assert first["Mass"]["kappa"] == pytest.approx(sk.cohen_kappa_score(says, one["Mass"][:120]))
    assert second["Mass"]["kappa"] == pytest.approx(sk.cohen_kappa_score(says, other.loc[index[:120], "Mass"]))
    # the film that was not held out does not count between readers either
    assert (readers["Mass"]["films"], readers["Mass"]["agreement"]) == (120, 0.75)
    assert list(second) == ["Mass"]
    assert first["Hernia"]["reason"] == "the model has no threshold for it"
    ap = (table["view"] == "AP").to_numpy()
    assert found[0]["by_view"]["AP"]["Mass"]["kappa"] == pytest.approx(
        sk.cohen_kappa_score(says[ap], one["Mass"][:120][ap])
    )
    assert found[0]["by_view"]["AP"]["Mass"]["films"] == ap.sum()


def test_without_thresholds_only_readers_compare() -> None:
    table = table_of().drop(columns=["threshold_Mass", "threshold_Hernia"])
    reader_of = pd.DataFrame({"Mass": 1.0}, index=pd.Index(table["image_id"]))
    reader_of.iloc[::2] = 0
    model, _, readers = agreement(table, ("Mass", "Hernia"), [reader_of, reader_of])
    assert model["targets"]["Mass"]["kappa"] is None
    assert model["targets"]["Mass"]["reason"] == "the model has no threshold for it"
    assert readers["targets"]["Mass"]["kappa"] == 1


def test_agreement_is_a_table_by_target_and_view() -> None:
    table = table_of()
    reader_of = pd.DataFrame({"Mass": 1.0, "Hernia": 0.0}, index=pd.Index(table["image_id"]))
    reader_of.iloc[::2] = 1 - reader_of.iloc[::2]
    html = page.render(
        "t", "", [page.Section("Decisions", more=tuple(_agreement(agreement(table, ("Mass", "Hernia"), [reader_of]))))]
    )
    for text in ("model – reader 1", "80 films", "the model has no threshold for it", ">AP<", ">PA<", ">all<"):
        assert text in html
    assert _agreement([]) == []


@pytest.mark.parametrize("key", [None, b"k" * 32])
def test_a_readers_names_lead_to_the_ids_of_predictions(tmp_path: Path, key: bytes | None) -> None:
    """Which are pseudonyms with a key; the duplicate, the broken and the strange film have no part in it."""
    films = tmp_path / "films"
    for name in ("a", "b", "c"):
        write_png(films / f"{name}.png")
    write_png(films / "copy" / "c.png")
    (films / "d.png").write_bytes(b"no film")
    private = assemble(scan_here(Radiograph(), Store(films), Store(films).files()), None).table
    private.loc[private["path"].str.contains("/copy/"), "status"] = "duplicate"
    pseudonyms = Pseudonyms(key)
    inventory = pd.DataFrame({"image_id": pseudonyms.all("image", private["item_id"].astype(str))}, index=private.index)
    (tmp_path / "r.csv").write_text("Image Index,Mass\nb.png,1\nfilms/a.png,0\nd.png,1\nz.png,1\n")
    answers = on_films(read_reader(str(tmp_path / "r.csv"), ("Mass",)), inventory, private)
    assert answers["Mass"].to_dict() == {pseudonyms.of("image", "a"): 0, pseudonyms.of("image", "b"): 1}
    assert ("a" in answers.index) == (key is None)


def test_a_reader_of_other_films_is_one_line(tmp_path: Path) -> None:
    write_png(tmp_path / "films" / "a.png")
    private = assemble(
        scan_here(Radiograph(), Store(tmp_path / "films"), Store(tmp_path / "films").files()), None
    ).table
    other = pd.DataFrame({"Mass": [1.0]}, index=pd.Index(["z"], name="image_id"))
    with pytest.raises(ValueError, match="^--reader: none of its 1 images is one of the 1 films; they must be named"):
        on_films(other, private.assign(image_id=private["item_id"]), private)
