from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medray.systems.boneage.phantoms.bones import GROWN_MONTHS, Child, Sex, draw_child, draw_shapes, maturity
from medray.systems.boneage.phantoms.films import DEMO, PhantomHands, PhantomSpec, film, film_plan
from medray.systems.boneage.phantoms.hand import Hand, Pose, draw_hand
from medray.systems.boneage.stages.canvas import COLUMNS_PX, POINTS, ROWS_PX, cut, register

SPEC = PhantomSpec(films=18)
PLAIN = Child(
    ahead=dict.fromkeys(("fingers", "palm", "carpals", "forearm"), 0.0),
    carpal_ahead=dict.fromkeys(
        ("capitate", "hamate", "triquetrum", "lunate", "scaphoid", "trapezium", "trapezoid", "pisiform"), 0.0
    ),
    width=1.0,
    flesh=1.0,
    reach=dict.fromkeys(("thumb", "index", "middle", "ring", "little"), 1.0),
)


def written(folder: Path, spec: PhantomSpec = SPEC) -> Path:
    phantoms = PhantomHands(spec)
    rows = [phantoms.write(folder, piece) for piece in reversed(phantoms.pieces(folder))]
    assert phantoms.finish(folder, rows) == (str(folder / "images"), str(folder / "labels"))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("hands"))


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels/ages.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def drawn(age_months: float, sex: Sex = "M", seed: int = 0, pose: Pose | None = None, rows: int = 1040) -> Hand:
    """An average child's hand."""
    return draw_hand(np.random.default_rng(seed), age_months, sex, rows, rows * COLUMNS_PX // ROWS_PX, pose, PLAIN)


# -- the hand ---------------------------------------------------------------------------------------------------------


def test_a_hand_lies_within_its_film_and_only_the_forearm_leaves_it() -> None:
    mirrored = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        hand = draw_hand(rng, rng.uniform(12, 228), ("F", "M")[seed % 2], 416, 320)  # type: ignore[arg-type]
        assert hand.image.shape == hand.mask.shape == (416, 320)
        assert hand.image.dtype == hand.mask.dtype == np.uint8
        assert set(np.unique(hand.mask)) == {0, 1}
        edge = np.ones_like(hand.mask)
        edge[1:-1, 1:-1] = 0
        y, x = np.nonzero(hand.mask & edge)
        assert len(x)
        matrix = np.vstack([hand.pose.matrix(416, 320), [0, 0, 1]])
        on_canvas = np.linalg.inv(matrix) @ np.stack([x, y, np.ones_like(x)])
        assert on_canvas[1].min() > 1800, seed  # below the carpal bones
        assert not (hand.mask & edge)[0].any()
        mirrored.append(hand.pose.mirrored)
        assert abs(hand.pose.rotation_deg) <= 25
        assert 0.6 <= hand.pose.scale <= 0.96
    assert 0.1 < np.mean(mirrored) < 0.3


def test_a_film_that_is_too_small_is_refused() -> None:
    assert draw_hand(np.random.default_rng(0), 100, "F", 42, 32).image.shape == (42, 32)
    assert draw_hand(np.random.default_rng(0), 100, "F", 100, 1000).points[:, 0].min() > 300
    with pytest.raises(ValueError, match="a film of 416 × 31 pixels is too small for a hand; 32 is the least"):
        draw_hand(np.random.default_rng(0), 100, "F", 416, 31)


def test_points_lie_in_the_mask_at_the_ends_of_bones() -> None:
    for seed in range(24):
        hand = drawn(40 + 7 * seed, seed=seed, rows=624)
        bone = bones(hand)
        for name, (x, y) in zip(POINTS, hand.points, strict=True):
            assert hand.mask[round(y), round(x)], (seed, name)
        tip, thumb, capitate = hand.points
        for end, of in ((tip, capitate), (thumb, capitate)):
            away = (end - of) / np.linalg.norm(end - of)
            px = hand.pose.scale * 624 / ROWS_PX  # of a canvas unit
            assert share(bone, end - away * 12 * px, 6 * px) > 0.8, seed
            assert share(bone, end + away * 22 * px, 6 * px) < 0.2, seed
        assert share(bone, capitate, 20 * px) > 0.9


def bones(hand: Hand) -> np.ndarray:
    """Where the hand is brighter than what is around, in whatever exposure."""
    wide = hand.image.shape[0] / 42
    inside = cv2.GaussianBlur(hand.mask.astype(np.float32), (0, 0), wide)
    around = cv2.GaussianBlur((hand.image * hand.mask).astype(np.float32), (0, 0), wide) / np.maximum(inside, 0.05)
    return (cv2.GaussianBlur(hand.image, (0, 0), 1.0) > around) & (hand.mask == 1)


def share(mask: np.ndarray, at: np.ndarray, radius: float) -> float:
    disc = np.zeros(mask.shape, dtype=np.uint8)
    cv2.circle(disc, (round(at[0]), round(at[1])), max(1, round(radius)), 1, -1)
    return float(mask[disc == 1].mean())


def test_the_truth_of_a_mirrored_hand_is_the_mirrored_truth() -> None:
    one = drawn(120, pose=Pose(rotation_deg=0, scale=0.8))
    other = drawn(120, pose=Pose(rotation_deg=0, scale=0.8, mirrored=True))
    columns = one.image.shape[1]
    np.testing.assert_allclose(other.points[:, 0], columns - 1 - one.points[:, 0], atol=1e-9)
    np.testing.assert_allclose(other.points[:, 1], one.points[:, 1], atol=1e-9)
    assert (one.mask != other.mask[:, ::-1]).mean() < 0.001
    assert one.points[1, 0] > one.points[2, 0]
    assert other.points[1, 0] < other.points[2, 0]


def test_a_pose_is_what_registration_by_the_true_points_undoes() -> None:
    canvas = drawn(100, pose=Pose(), rows=ROWS_PX)
    np.testing.assert_allclose(canvas.points[[0, 2]], [(800, 100), (800, 1600)], atol=1e-9)
    for seed in range(20):
        hand = drawn(100, seed=seed, rows=416)
        found = register(hand.points, *hand.image.shape)
        assert found.mirrored == hand.pose.mirrored
        matrix = np.vstack([hand.pose.matrix(*hand.image.shape), [0, 0, 1]])
        np.testing.assert_allclose(np.vstack([found.matrix, [0, 0, 1]]) @ matrix, np.eye(3), atol=1e-6)


def test_a_pose_turns_clockwise_as_seen_and_shifts_by_parts_of_the_film() -> None:
    still, turned = Pose(scale=0.8), Pose(rotation_deg=20, scale=0.8)
    up = still.matrix(416, 320) @ [800, 100, 1]
    assert (turned.matrix(416, 320) @ [800, 100, 1])[0] > up[0]
    shifted = Pose(scale=0.8, shift_x=0.1, shift_y=-0.05).matrix(416, 320) @ [800, 100, 1]
    np.testing.assert_allclose(shifted - up, [32, -20.8])


# -- its age ----------------------------------------------------------------------------------------------------------


def carpals(hand: Hand) -> int:
    """Bones between the metacarpals and the forearm that are seen apart from each other."""
    y0, y1, x0, x1 = (round(v / 2) for v in (1520, 1775, 560, 1010))
    wrist = cv2.GaussianBlur(hand.image, (0, 0), 1.0)[y0:y1, x0:x1].astype(np.float32)
    lowest, highest = np.percentile(wrist[hand.mask[y0:y1, x0:x1] == 1], [2, 99])
    solid = (wrist > lowest + 0.45 * (highest - lowest)).astype(np.uint8)
    solid = cv2.morphologyEx(solid, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, _, stats, centres = cv2.connectedComponentsWithStats(solid)
    inside = (stats[1:, cv2.CC_STAT_TOP] > 0) | (
        centres[1:, 1] > 25
    )  # what touches the upper edge is a metacarpal's base
    return int(((stats[1:, cv2.CC_STAT_AREA] > 60) & inside).sum())


def knuckle(hand: Hand) -> np.ndarray:
    """The share of bone that is missing, on the middle finger's axis about its knuckle: 0 in bone, 1 in flesh."""
    image = cv2.GaussianBlur(hand.image, (0, 0), 1.0).astype(np.float32)
    rows = slice(800 // 2, 1060 // 2)
    strip = image[rows, 395:406].mean(axis=1)
    bone, flesh = np.median(strip[:25]), np.percentile(image[rows][hand.mask[rows] == 1], 5)
    return ((bone - strip) / (bone - flesh)).clip(0)  # type: ignore[no-any-return]


def test_carpal_bones_appear_one_after_the_other() -> None:
    counts = [[carpals(drawn(age, seed=seed, pose=Pose())) for seed in range(4)] for age in (14, 55, 72, 110)]
    young, early, later, old = (float(np.median(count)) for count in counts)
    assert young <= 2 < early < later, counts
    assert old >= 6, counts


def test_growth_plates_narrow_and_close() -> None:
    found = {age: [knuckle(drawn(age, seed=seed, pose=Pose())) for seed in range(4)] for age in (15, 60, 130, 170, 226)}
    missing = [float(np.mean([strip.sum() for strip in strips])) for strips in found.values()]
    assert (np.diff(missing) < 0).all(), missing
    # epiphyses are as large as they get: what changes is the width of both plates, beside that of the joint
    assert missing[3] < 0.75 * missing[2], missing

    def dark_runs(strip: np.ndarray) -> int:
        return int((np.diff((strip > 0.35).astype(int), prepend=0) == 1).sum())

    assert [dark_runs(strip) for strip in found[130]] == [3] * 4  # plate, joint, plate
    assert [dark_runs(strip) for strip in found[226]] == [1] * 4  # the joint


def test_a_girl_is_as_mature_as_an_older_boy() -> None:
    assert maturity(95, "F") == pytest.approx(maturity(114, "M")) == pytest.approx(0.5)
    girl, boy, same_age = (drawn(*what, pose=Pose(), rows=416) for what in ((95.0, "F"), (114.0, "M"), (95.0, "M")))
    np.testing.assert_array_equal(girl.image, boy.image)
    assert (girl.image != same_age.image).any()


def test_the_size_of_the_hand_does_not_tell_its_age() -> None:
    found = []
    for seed in range(200):
        age = np.random.default_rng([seed, 1]).uniform(12, 228)
        hand = drawn(age, seed=seed, rows=208)
        found.append((age, np.linalg.norm(hand.points[0] - hand.points[2])))
    assert abs(np.corrcoef(np.array(found).T)[0, 1]) < 0.2


def test_a_child_is_no_lookup_and_keeps_its_build() -> None:
    def outline(child: Child) -> np.ndarray:
        return np.vstack([points for _, _, points in draw_shapes(np.random.default_rng(0), child, 0.5).bones])

    one, again, other = (draw_child(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == again != other
    np.testing.assert_array_equal(outline(one), outline(again))
    assert outline(one).shape != outline(other).shape or np.abs(outline(one) - outline(other)).max() > 1


@pytest.mark.slow
def test_registered_hands_tell_months_and_sex_is_worth_several_of_them() -> None:
    """A line through pixels, five folds: the constant, unregistered films, registered ones, and with sex."""
    spec = PhantomSpec(films=280, film_px=(312, 240))
    raw, registered, ages, grown = [], [], [], []
    for number in range(1, spec.films + 1):
        plan = film_plan(spec, number)
        hand = film(spec, plan)
        raw.append(cv2.resize(hand.image, (60, 78), interpolation=cv2.INTER_AREA).ravel())
        registered.append(cut(hand.image, register(hand.points, *hand.image.shape), "B", 0.08).ravel())
        ages.append(plan.age_months)
        grown.append(GROWN_MONTHS[plan.sex])
    months, full = np.array(ages, dtype=float), np.array(grown)

    def error(images: list[np.ndarray], target: np.ndarray, factor: np.ndarray | float = 1.0) -> float:
        values = np.array(images, dtype=np.float32)
        values = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
        found = cross_val_predict(make_pipeline(StandardScaler(), Ridge(1000.0)), values, target, cv=5)
        return float(np.abs(found * factor - months).mean())

    constant = float(np.abs(months - np.median(months)).mean())
    with_sex, without, unregistered = (
        error(registered, months / full, full),
        error(registered, months),
        error(raw, months),
    )
    assert with_sex < 0.25 * constant, (with_sex, constant)
    assert without > with_sex + 3, (with_sex, without)
    assert unregistered > 2 * without, (without, unregistered)


# -- the folder -------------------------------------------------------------------------------------------------------


def test_films_are_grey_and_most_have_a_mask_of_the_same_name_and_size(folder: Path) -> None:
    names = [path.name for path in sorted((folder / "images").glob("*.png"))]
    assert names == [f"{number:04d}.png" for number in range(1, 19)]
    masks = {path.name for path in (folder / "images/masks").iterdir()}
    assert masks < set(names)
    assert len(masks) == 14
    for name in names:
        image = cv2.imread(str(folder / "images" / name), cv2.IMREAD_UNCHANGED)
        assert image is not None
        assert (image.shape, image.dtype) == (SPEC.film_px, np.uint8)
        if name in masks:
            mask = cv2.imread(str(folder / "images/masks" / name), cv2.IMREAD_UNCHANGED)
            assert mask is not None
            assert mask.shape == SPEC.film_px
            assert set(np.unique(mask)) == {0, 255}
            truth = film(SPEC, film_plan(SPEC, int(name[:4])))
            np.testing.assert_array_equal(mask, truth.mask * 255)
            np.testing.assert_array_equal(image, truth.image)


def test_the_table_is_as_the_challenge_has_it_with_a_patient_and_a_calendar_age(folder: Path) -> None:
    rows = table(folder)
    assert list(rows[0]) == ["id", "boneage", "male", "patient", "calendar_age"]
    assert [row["id"] for row in rows] == [f"{number:04d}" for number in range(1, 19)]
    assert {row["male"] for row in rows} == {"True", "False"}
    assert all(12 <= int(row["boneage"]) <= 228 for row in rows)
    assert sum(row["calendar_age"] == "" for row in rows) == 6
    first, second = rows[6:8]
    assert first["patient"] == second["patient"]
    assert first["male"] == second["male"]
    assert 12 <= abs(int(first["boneage"]) - int(second["boneage"])) <= 36
    assert len({row["patient"] for row in rows}) == 16


def test_points_are_an_export_of_via(folder: Path) -> None:
    marked = json.loads((folder / "labels/points.json").read_text())
    assert len(marked) == 14
    without_mask = set()
    for key, entry in marked.items():
        path = folder / "images" / entry["filename"]
        assert entry["size"] == path.stat().st_size
        assert key == f"{entry['filename']}{entry['size']}"
        assert entry["file_attributes"] == {}
        assert [region["region_attributes"]["name"] for region in entry["regions"]] == ["tip", "thumb", "capitate"]
        assert {region["shape_attributes"]["name"] for region in entry["regions"]} == {"point"}
        given = [[region["shape_attributes"][axis] for axis in ("cx", "cy")] for region in entry["regions"]]
        truth = film(SPEC, film_plan(SPEC, int(entry["filename"][:4])))
        np.testing.assert_allclose(given, truth.points, atol=0.006)
        if not (folder / "images/masks" / entry["filename"]).exists():
            without_mask.add(entry["filename"])
    assert without_mask == {"0007.png", "0015.png"}


def test_calendar_age_is_bone_age_and_noise_and_ages_crowd_at_whole_years() -> None:
    plans = [film_plan(PhantomSpec(films=800), number) for number in range(1, 801)]
    known = np.array([plan.calendar_months - plan.age_months for plan in plans if plan.calendar_months is not None])
    assert abs(known.mean()) < 1
    assert 7 < known.std() < 9
    assert 0.4 < np.mean([plan.age_months % 12 == 0 for plan in plans]) < 0.6
    for sex, most in GROWN_MONTHS.items():
        ages = [plan.age_months for plan in plans if plan.sex == sex]
        assert len(ages) > 350
        assert min(ages) >= 12
        assert 0.9 * most < max(ages) <= most


def test_the_same_numbers_give_the_same_bytes_and_a_finished_folder_is_kept(folder: Path, tmp_path: Path) -> None:
    def sums(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    written(tmp_path)
    assert sums(tmp_path) == sums(folder)
    phantoms = PhantomHands(SPEC)
    assert phantoms.pieces(tmp_path) == []
    assert phantoms.finish(tmp_path, []) == (str(tmp_path / "images"), str(tmp_path / "labels"))
    assert sums(tmp_path) == sums(folder)
    for other in (PhantomSpec(films=18, seed=1), PhantomSpec(films=18, film_px=(208, 160))):
        with pytest.raises(ValueError, match="another specification; choose an empty folder"):
            PhantomHands(other).pieces(tmp_path)
    assert film_plan(PhantomSpec(seed=1), 1) != film_plan(SPEC, 1)


def test_a_set_that_was_cut_off_is_written_whole(folder: Path, tmp_path: Path) -> None:
    phantoms = PhantomHands(SPEC)
    pieces = phantoms.pieces(tmp_path)
    assert pieces == [(1, 8), (9, 16), (17, 18)]
    phantoms.write(tmp_path, pieces[1])
    assert not (tmp_path / "labels/ages.csv").exists()
    assert phantoms.pieces(tmp_path) == pieces
    written(tmp_path)
    assert (tmp_path / "labels/ages.csv").read_bytes() == (folder / "labels/ages.csv").read_bytes()
    assert (tmp_path / "labels/points.json").read_bytes() == (folder / "labels/points.json").read_bytes()


def test_the_demo_has_both_sexes_of_all_ages() -> None:
    plans = [film_plan(DEMO.spec, number) for number in range(1, DEMO.spec.films + 1)]
    assert len(plans) == 96
    for sex in ("F", "M"):
        ages = [plan.age_months for plan in plans if plan.sex == sex]
        assert len(ages) >= 40
        assert np.histogram(ages, bins=[12, 60, 120, 229])[0].min() >= 6
