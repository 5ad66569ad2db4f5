from __future__ import annotations

from pathlib import Path

import pytest

from medray.engine.job.claim import KEY, PROJECT, any_begun, check_key, claim, claim_answers, claim_each, project_of
from medray.shards.store import Store


def test_the_same_configuration_goes_on_and_another_one_is_refused_by_its_first_difference(tmp_path: Path) -> None:
    claim(Store(tmp_path), {"a": 1, "windows": ("brain",)})
    claim(Store(tmp_path), {"a": 1, "windows": ["brain"]})
    with pytest.raises(ValueError, match=r"holds a run with a = 1, this one has 2 \(and 1 more\)"):
        claim(Store(tmp_path), {"a": 2, "windows": []})


def test_of_a_long_setting_the_part_that_differs_is_shown(tmp_path: Path) -> None:
    sources = [{"name": name, "mapping": [["1", ["Liver"]]]} for name in "ab"]
    other = [sources[0], {"name": "b", "mapping": [["1", ["Spleen"]]]}]
    claim(Store(tmp_path), {"sources": sources, "more": 1})
    with pytest.raises(
        ValueError, match=r"with sources\[1\].mapping\[0\]\[1\]\[0\] = 'Liver', this one has 'Spleen'; give"
    ):
        claim(Store(tmp_path), {"sources": other, "more": 1})
    with pytest.raises(ValueError, match=r"this one has \[\{.{100,130}…; give"):
        claim(Store(tmp_path), {"sources": [*sources, *other], "more": 1})
    claim(Store(tmp_path / "old"), {"task": {"a": 1}})
    with pytest.raises(ValueError, match=r"task = \{'a': 1\}, this one has \{'a': 1, 'new': None\}; give"):
        claim(Store(tmp_path / "old"), {"task": {"a": 1, "new": None}})


def test_a_mistake_that_has_left_no_result_can_be_corrected(tmp_path: Path) -> None:
    store = Store(tmp_path)
    claim(store, {"pretrained": True}, begun=False)
    store.write_bytes("initial.pt", b"weights of the mistake")
    claim(store, {"pretrained": False}, begun=False)
    assert store.read_json("config.json") == {"pretrained": False}
    assert not store.exists("initial.pt")


def begin(store: Store) -> None:
    store.sub("fold0").write_json("history.json", [])


def test_a_folder_that_is_refused_leaves_the_others_unclaimed(tmp_path: Path) -> None:
    runs = Store(tmp_path)
    claim_each(runs, {"b": {"epochs": 1}}, "")
    begin(runs.sub("b"))
    with pytest.raises(ValueError, match="epochs = 1, this one has 2"):
        claim_each(runs, {"a": {"epochs": 2}, "b": {"epochs": 2}}, "")
    assert not runs.sub("a").exists("config.json")


def test_a_variant_uses_what_is_as_before_and_puts_the_rest_beside_it(tmp_path: Path) -> None:
    runs = Store(tmp_path)
    first = {"net": {"size": 64}, "net-sequence": {"hidden": 48}, "no-remedy": {"size": 64, "remedy": 1}}
    assert claim_each(runs, first, "") == {name: name for name in first}
    for name in first:
        begin(runs.sub(name))
    wider = first | {"net-sequence": {"hidden": 64}}
    places = {"net": "net", "net-sequence": "net-sequence-wide", "no-remedy": "no-remedy"}
    assert claim_each(runs, wider, "wide") == places
    begin(runs.sub("net-sequence-wide"))
    assert claim_each(runs, wider, "wide") == places  # started again
    assert claim_each(runs, first, "") == {name: name for name in first}
    with pytest.raises(ValueError, match="hidden = 64, this one has 32"):
        claim_each(runs, first | {"net-sequence": {"hidden": 32}}, "wide")


def test_a_variant_before_anything_else_leaves_the_plain_name_free(tmp_path: Path) -> None:
    assert claim_each(Store(tmp_path), {"net": {"size": 32}}, "small") == {"net": "net-small"}


def test_what_has_begun(tmp_path: Path) -> None:
    out = Store(tmp_path)
    claim_each(out.sub("runs"), {"net": {}}, "")
    assert not any_begun(out)
    begin(out.sub("runs", "net"))
    assert any_begun(out)
    searching = Store(tmp_path / "other")
    begin(searching.sub("searches", "s", "runs", "0a1b"))
    assert any_begun(searching)


def test_answers_take_no_folder_of_another_job(tmp_path: Path) -> None:
    to, answers = Store(tmp_path), {"files": "a", "method": "b"}
    claim_answers(to, answers)
    claim_answers(to, answers | {"files": "c"})  # nothing was made yet
    to.sub("parts").write_bytes("study00001.parquet", b"")
    with pytest.raises(
        ValueError, match="^--to .*: holds a run with files = 'c', this one has 'a'.*choose another --to$"
    ):
        claim_answers(to, answers)
    job = Store(tmp_path / "job")
    claim(job, {"dicom": "x", "folds": 5}, begun=False)
    before = job.read_bytes("config.json")
    with pytest.raises(ValueError, match="holds the results of another kind of job; choose another --to"):
        claim_answers(job, answers)
    assert job.read_bytes("config.json") == before


def test_another_key_is_refused_before_anything_is_made_anew(tmp_path: Path) -> None:
    out, keys = Store(tmp_path), tmp_path / "keys"
    check_key(out, "p", "aaaa", keys)
    claim(out, {KEY: "aaaa", PROJECT: "p"})
    check_key(out, "p", "aaaa", keys)
    with pytest.raises(
        ValueError, match=r"made with the key aaaa, and .*keys holds bbbb; name the --key-dir with its key"
    ):
        check_key(out, "p", "bbbb", keys)
    with pytest.raises(ValueError, match="its pseudonyms are those of --project p; name that one or none, or choose"):
        check_key(out, "q", "cccc", keys)
    claim(out.sub("old"), {KEY: "aaaa"})
    with pytest.raises(ValueError, match="was begun by an earlier version, under which all outputs had one key"):
        check_key(out.sub("old"), "p", "bbbb", keys)


def test_an_out_keeps_its_project_and_another_one_has_another(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "a"), Store(tmp_path / "b")
    new = project_of(one)
    assert len(new) == 16
    assert new != project_of(other)
    claim(one, {KEY: "aaaa", PROJECT: new})
    assert project_of(one) == new


def test_a_run_of_a_version_without_a_setting_goes_on(tmp_path: Path) -> None:
    out = Store(tmp_path)
    claim(out, {"a": 1})
    claim(out, {"a": 1, KEY: None, "new": None})
    assert out.read_json("config.json") == {"a": 1, KEY: None, "new": None}
    claim(out.sub("old"), {"a": 1})
    claim(out.sub("old"), {"a": 1, KEY: "aaaa"})
    with pytest.raises(ValueError, match="holds a run with a = 1, this one has 2"):
        claim(out.sub("old"), {"a": 2, KEY: "aaaa"})
    with pytest.raises(ValueError, match=f"{KEY} = 'aaaa', this one has None"):
        claim(out.sub("old"), {"a": 1, KEY: None})
