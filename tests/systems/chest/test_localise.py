from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medray.systems.chest.localise import BOX_SPACE_PX, OVERLAPS, Boxes, by_finding, compare, read_boxes, with_boxes

HEAD = "Image Index,Finding Label,Bbox [x,y,w,h]\n"


def boxes_of(tmp_path: Path, text: str) -> Boxes:
    (tmp_path / "boxes.csv").write_text(text)
    return read_boxes(str(tmp_path / "boxes.csv"))


def heat_at(rows: int, columns: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """No heat but 1 in each box (x, y, w, h)."""
    heat = np.zeros((rows, columns), np.float32)
    for x, y, w, h in boxes:
        heat[y : y + h, x : x + w] = 1
    return heat


@pytest.mark.real_data
def test_the_published_boxes(chest_dir: Path) -> None:
    found = read_boxes(str(chest_dir / "BBox_List_2017.csv.gz"))
    assert len(found.table) == 984
    assert found.left_out == {}
    assert found.table["finding"].value_counts().to_dict() == {
        "Atelectasis": 180, "Effusion": 153, "Cardiomegaly": 146, "Infiltration": 123, "Pneumonia": 120,
        "Pneumothorax": 98, "Mass": 85, "Nodule": 79,
    }  # fmt: skip
    first = found.table.iloc[0]
    assert (first["image"], first["finding"]) == ("00013118_008", "Atelectasis")
    assert first[["x", "y", "w", "h"]].tolist() == pytest.approx([225.084745762712, 547.019216763771, 86.7796610169491, 79.1864406779661])  # fmt: skip
    assert (found.table[["x", "y"]].to_numpy() + found.table[["w", "h"]].to_numpy()).max() <= BOX_SPACE_PX


def test_columns_are_found_in_other_tables_too(tmp_path: Path) -> None:
    found = boxes_of(tmp_path, "image,label,y,x,height,width,note\na.png,pleural thickening,20,10,40,30,z\n")
    assert found.table.to_dict("records") == [
        {"image": "a", "finding": "Pleural_Thickening", "x": 10, "y": 20, "w": 30, "h": 40}
    ]


def test_boxes_that_cannot_be_used_are_left_out_and_counted(tmp_path: Path) -> None:
    found = boxes_of(
        tmp_path,
        HEAD + "a.png,Mass,10,20,30,40\nb.png,Mass,2000,20,30,40\nc.png,Mass,10,20,0,40\nd.png,Mass,10,,30,40\n"
        "e.png,Mass,1000,1000,100,100\nf.png,Infiltrate,1004,-10,24,100\n",
    )
    assert found.table["image"].tolist() == ["a", "f"]
    # cut to the image, since most of it is inside
    assert found.table.iloc[1].tolist() == ["f", "Infiltration", 1004, 0, 20, 90]
    assert found.left_out == {"no number, or no area": 2, "more than half outside the image of 1024 pixels": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Image Index,Finding Label,x,y,w\na,Mass,1,1,1\n", "no column for h; its columns are Image Index, Finding Label"),
        ("picture,x,y,w,h\na,1,1,1,1\n", "no column for image, finding;"),
        (HEAD + "a,Lump,1,1,1,1\na,Mas,1,1,1,1\n", r'"Lump", "Mas" \(did you mean Mass\?\): no finding that medray knows'),
        (HEAD + "a,Mass,3000,1,10,10\n", "none of 1 boxes is usable; first reason: more than half outside"),
        (HEAD, "there is no row in it"),
        (HEAD + "a,Mass,1,1,1\n", "line 2 has 5 cells, the header has 6"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^--boxes .*boxes.csv: {message}") as error:
        boxes_of(tmp_path, text)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="^--boxes .*absent.csv: "):
        read_boxes(str(tmp_path / "absent.csv"))


@pytest.mark.parametrize(("rows", "columns"), [(1024, 1024), (512, 512), (2048, 2048), (1024, 512)])
def test_heat_that_fills_the_box_is_a_full_hit_at_any_size_of_the_film(rows: int, columns: int) -> None:
    x, y, w, h = 256, 512, 128, 64
    by_row, by_column = rows / BOX_SPACE_PX, columns / BOX_SPACE_PX
    heat = heat_at(rows, columns, (int(x * by_column), int(y * by_row), int(w * by_column), int(h * by_row)))
    assert compare(heat, (x, y, w, h)) == {"iou": 1.0, "iobb": 1.0, "pointing": 1.0}


def test_overlaps_are_those_of_the_definition() -> None:
    heat = heat_at(1024, 1024, (100, 100, 200, 100))
    # half of the found region lies in a box of the same size
    assert compare(heat, (200, 100, 200, 100)) == pytest.approx({"iou": 1 / 3, "iobb": 0.5, "pointing": 0.0})
    # a box that holds the region: nothing of it lies outside, yet the box is larger
    assert compare(heat, (0, 0, 400, 400)) == pytest.approx({"iou": 20_000 / 160_000, "iobb": 1.0, "pointing": 1.0})
    # a box within the region
    assert compare(heat, (100, 100, 50, 50)) == pytest.approx({"iou": 0.125, "iobb": 0.125, "pointing": 1.0})
    assert compare(heat, (600, 600, 50, 50)) == {"iou": 0.0, "iobb": 0.0, "pointing": 0.0}


def test_the_strongest_place_points_and_weak_heat_is_no_region() -> None:
    heat = heat_at(1024, 1024, (100, 100, 200, 200)) * 0.6
    heat[700, 700] = 1
    heat[400:600, 400:600] = 0.4
    elsewhere = compare(heat, (100, 100, 200, 200))
    assert elsewhere == {"iou": 1.0, "iobb": 1.0, "pointing": 0.0}  # of several regions the best one counts
    assert compare(heat, (690, 690, 20, 20))["pointing"] == 1
    assert compare(heat, (400, 400, 200, 200))["iou"] == 0
    assert compare(heat, (400, 400, 200, 200), threshold=0.3)["iou"] == 1


def test_a_map_without_heat_finds_nothing() -> None:
    nothing = {"iou": 0.0, "iobb": 0.0, "pointing": 0.0}
    assert compare(np.zeros((64, 64), np.float32), (0, 0, 1024, 1024)) == nothing
    assert compare(np.full((64, 64), np.nan, np.float32), (0, 0, 1024, 1024)) == nothing
    unseen = heat_at(64, 64, (16, 16, 32, 32))
    unseen[:16] = np.nan
    assert compare(unseen, (256, 256, 512, 512))["iou"] == 1


def test_hit_rates_by_finding() -> None:
    found = pd.DataFrame(
        [
            {"finding": "Mass", "iou": 0.05, "iobb": 0.3, "pointing": 0.0},
            {"finding": "Mass", "iou": 0.5, "iobb": 0.95, "pointing": 1.0},
            {"finding": "Nodule", "iou": 0.2, "iobb": 0.1, "pointing": 1.0},
        ]
    )
    rates = by_finding(found)
    assert list(rates) == ["all", "Mass", "Nodule"]
    assert [float(t) for t in rates["all"]["iou"]] == list(OVERLAPS) == [0.1, 0.25, 0.5, 0.75, 0.9]
    assert rates["Mass"] == {
        "boxes": 2, "pointing": 0.5, "iou": {"0.1": 0.5, "0.25": 0.5, "0.5": 0.5, "0.75": 0, "0.9": 0},
        "iobb": {"0.1": 1, "0.25": 1, "0.5": 0.5, "0.75": 0.5, "0.9": 0.5},
    }  # fmt: skip
    assert rates["all"]["pointing"] == pytest.approx(2 / 3)
    assert rates["all"]["iou"]["0.1"] == pytest.approx(2 / 3)
    assert rates["Nodule"]["iobb"]["0.1"] == 1


def test_boxes_are_drawn_where_they_lie() -> None:
    picture = np.zeros((512, 256, 3), np.uint8)
    drawn = with_boxes(picture, [(256, 512, 512, 256)])
    rows, columns = np.nonzero(drawn.max(axis=2))
    assert (rows.min(), rows.max()) == (pytest.approx(256, abs=2), pytest.approx(384, abs=2))
    assert (columns.min(), columns.max()) == (pytest.approx(64, abs=2), pytest.approx(192, abs=2))
    assert not drawn[300:340, 100:150].any()
