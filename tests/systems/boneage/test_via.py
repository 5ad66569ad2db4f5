from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import pytest

from medray.shards.cells import read_cells
from medray.systems.boneage.films.table import meaning
from medray.systems.boneage.films.via import Drawn, is_export, read_csv, read_json

HEADER = [
    "filename", "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes", "region_attributes",
]  # fmt: skip


def point(name: str, x: Any, y: Any, attribute: str = "point") -> dict[str, Any]:
    return {"shape_attributes": {"name": "point", "cx": x, "cy": y}, "region_attributes": {attribute: name}}


def polygon(x: list[Any], y: list[Any], shape: str = "polygon") -> dict[str, Any]:
    return {"shape_attributes": {"name": shape, "all_points_x": x, "all_points_y": y}, "region_attributes": {}}


def annotations(*films: tuple[str, Any]) -> dict[str, Any]:
    return {
        f"{name}{size}": {"filename": name, "size": size, "regions": regions, "file_attributes": {}}
        for size, (name, regions) in enumerate(films)
    }


def of_json(value: Any) -> Drawn:
    return read_json(value if isinstance(value, bytes) else json.dumps(value).encode(), "via.json")


def csv_bytes(*rows: tuple[str, Any, Any]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(HEADER)
    for film, shape, attributes in rows:
        cells = [value if isinstance(value, str) else json.dumps(value) for value in (shape, attributes)]
        writer.writerow([film, 1000, "{}", 1, 0, *cells])
    return stream.getvalue().encode()


def of_csv(*rows: tuple[str, Any, Any]) -> Drawn:
    cells = read_cells(csv_bytes(*rows), "via.csv", "--labels", meaning)
    assert is_export(cells)
    return read_csv(cells, "via.csv")


def refused(value: Any, message: str, secret: str = "Secret") -> None:
    with pytest.raises(ValueError, match=message) as error:
        of_json(value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("--labels via.json: ")
    assert secret not in str(error.value)


HAND = [
    point("tip", 800, 100),
    point("Thumb_Tip", 1400.5, 700),
    point("capitate", 800, 1600),
    polygon([0, 9, 9], [0, 0, 9]),
]


def test_both_forms_of_json_are_read_and_films_without_regions_say_nothing() -> None:
    films = annotations(("1437.png", HAND), ("1440.png", []))
    project = {"_via_settings": {}, "_via_img_metadata": films, "_via_attributes": {}, "_via_image_id_list": []}
    for value in (films, project, b"\xef\xbb\xbf" + json.dumps(project).encode()):
        found = of_json(value)
        assert found.six("1437") == [800, 100, 1400.5, 700, 800, 1600]
        assert found.outlines == {"1437": [0, 0, 9, 0, 9, 9]}
        assert found.six("1440") is None
        assert found.others == 0


def test_regions_of_via_1_are_numbered() -> None:
    assert of_json(annotations(("a.png", {"0": HAND[0], "1": HAND[3]}))).points == {"a": {"tip": (800, 100)}}


def test_the_csv_says_the_same_as_the_json() -> None:
    rows = [("1437.png", region["shape_attributes"], region["region_attributes"]) for region in HAND]
    found = of_csv(*rows, ("1440.png", "{}", "{}"))
    assert found == of_json(annotations(("1437.png", HAND)))


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("tip", "tip"), ("Middle Finger", "tip"), ("middle", "tip"), ("FINGERTIP", "tip"), ("finger-tip", "tip"),
        ("thumb", "thumb"), ("thumb-tip", "thumb"), (" Thumb  tip ", "thumb"), ("Capitate", "capitate"),
    ],
)  # fmt: skip
def test_points_are_known_by_the_value_of_any_attribute(written: str, name: str) -> None:
    region = point(written, 1, 2, attribute="bone")
    region["region_attributes"] |= {"quality": "good", "note": ""}
    assert of_json(annotations(("a", [region]))).points == {"a": {name: (1, 2)}}
    region["region_attributes"] = {"which": {written: True, "other": False}}  # of checkboxes
    assert of_json(annotations(("a", [region]))).points == {"a": {name: (1, 2)}}


def test_a_point_that_is_not_marked_is_nan() -> None:
    six = of_json(annotations(("a", [point("thumb", 3, 4)]))).six("a")
    assert six is not None
    assert six[2:4] == [3, 4]
    assert all(map(math.isnan, six[:2] + six[4:]))


def test_regions_of_other_shapes_are_counted() -> None:
    box = {"shape_attributes": {"name": "rect", "x": 1, "y": 1, "width": 2, "height": 2}, "region_attributes": {}}
    found = of_json(annotations(("a", [box, polygon([1, 2, 3], [1, 2, 1], "polyline")])))
    assert found.others == 1
    assert found.outlines == {"a": [1, 1, 2, 2, 3, 1]}


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([point("thumb", 1, 1), point("thumb tip", 2, 2)], "film 2: a second point called thumb on one film; delete one"),
        ([point("pinky", 1, 1)], r"film 2: a point with no name that is known; call it tip, thumb or capitate"),
        ([point("", 1, 1)], "film 2: a point with no name that is known; call it tip"),
        ([{"shape_attributes": {"name": "point", "cx": 1, "cy": 1}, "region_attributes": None}], "film 2: a point with no name"),
        ([point("tip", 1, 1) | {"region_attributes": {"a": "tip", "b": "thumb"}}], r"two names; call it"),
        ([point("tip", math.nan, 1)], "film 2: a coordinate is no finite number; draw the region again, or delete it"),
        ([point("tip", 1, math.inf)], "a coordinate is no finite number"),
        ([point("tip", "1", 1)], "a coordinate is no finite number"),
        ([point("tip", None, 1)], "a coordinate is no finite number"),
        ([point("tip", True, 1)], "a coordinate is no finite number"),
        ([point("tip", 10**400, 1)], "a coordinate is no finite number"),
        ([polygon([1, 2, 3], [1, 2, math.nan])], "a coordinate is no finite number"),
        ([polygon([1, 2], [1, 2])], "film 2: an outline of fewer than three corners; draw it again"),
        ([polygon([1, 2, 3, 4], [1, 2, 3])], "an outline of fewer than three corners"),
        ([HAND[3], HAND[3]], "film 2: a second outline of one film; keep the one of the hand"),
        (["tip"], "film 2: no list of regions; save the annotations of VIA 2 again"),
        ("tip", "film 2: no list of regions"),
    ],
)  # fmt: skip
def test_a_region_that_cannot_be_meant_is_one_line_without_a_name(regions: Any, message: str) -> None:
    refused(annotations(("a.png", HAND), ("Secret^Patient.png", regions)), message)


def test_films_that_cannot_be_told_apart_are_refused() -> None:
    refused(annotations(("a.png", HAND[:1]), ("a.jpg", HAND[:1])), "two of its films have one name but for its ending")
    refused(annotations(("", HAND[:1])), "film 1: it has no filename")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no json", "not JSON as VIA writes it; save the annotations of VIA 2 again, as JSON or CSV"),
        (b"", "not JSON as VIA writes it"),
        (b"[" * 100_000, "not JSON as VIA writes it"),
        (b'{"a": ' * 100_000, "not JSON as VIA writes it"),
        (b'{"a": 1, "a": 2}', "not JSON as VIA writes it"),
        (b'{"a": %s}' % (b"9" * 5000), "not JSON as VIA writes it"),
        ("{}".encode("utf-16"), "not JSON in UTF-8"),
        (b"[1]", 'no "_via_img_metadata", nor films with a filename and regions: no export of VIA'),
        (b'{"images": [], "annotations": []}', "no export of VIA"),
        (b'{"_via_img_metadata": 3}', "no export of VIA"),
        (b'{"project": {}, "config": {}, "file": {}, "metadata": {}}', "a project of VIA 3; mark the points in VIA 2"),
    ],
)  # fmt: skip
def test_what_is_no_export_is_one_line(data: bytes, message: str) -> None:
    refused(data, message)


def test_a_file_of_any_size_is_not_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medray.systems.boneage.films.via.MOST_BYTES", 10)
    refused(annotations(("a", HAND)), "more than 0 MB, no export of VIA has so many")


def test_a_cell_that_is_no_json_names_its_line() -> None:
    shape = HAND[0]["shape_attributes"]
    with pytest.raises(
        ValueError, match="^--labels via.csv: line 3: region_shape_attributes is not JSON as VIA writes it"
    ):
        of_csv(("a", shape, {"n": "tip"}), ("a", "{cx: 1}", {"n": "tip"}))
    with pytest.raises(ValueError, match="^--labels via.csv: line 2: region_attributes is not JSON"):
        of_csv(("a", shape, "__import__('os')"))
    with pytest.raises(ValueError, match="^--labels via.csv: line 3: a second point called tip"):
        of_csv(("a", shape, {"n": "tip"}), ("a", shape, {"n": "tip"}))


def test_several_exports_add_up_where_they_agree() -> None:
    whole = of_json(annotations(("a.png", HAND[:2])))
    whole.add(of_json(annotations(("a.png", HAND[1:]), ("b.png", HAND[:1]))), "second.json")
    assert whole.six("a") == [800, 100, 1400.5, 700, 800, 1600]
    assert whole.outlines == {"a": [0, 0, 9, 0, 9, 9]}
    assert list(whole.points) == ["a", "b"]
    with pytest.raises(
        ValueError, match="^--labels x.csv: another export has the tip of one film elsewhere; keep one of both"
    ):
        whole.add(of_json(annotations(("a", [point("tip", 1, 1)]))), "x.csv")
    with pytest.raises(ValueError, match="another outline of one film"):
        whole.add(of_json(annotations(("a", [polygon([1, 2, 3], [1, 2, 1])]))), "x.csv")


def test_a_table_of_ages_is_no_export() -> None:
    assert not is_export(read_cells(b"id,boneage,male\n1,2,3\n", "t.csv"))
