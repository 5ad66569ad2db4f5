"""Files that end the process that reads them, whatever the reason: set aside, and all else goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from ingested import ingested
from miniature import lethal, volumes
from miniature.lethal import IN_HEADER, IN_PIXELS, Lethal, make_lethal
from miniature.volumes import assemble, with_lesion, write_volumes
from ray.cloudpickle import register_pickle_by_value

from medray.engine.data.inputs import Input
from medray.shards.store import Store

TWICE = "the process that read it died of it, twice"


@pytest.mark.slow
def test_files_that_kill_their_reader_are_set_aside_and_the_others_go_on(
    tmp_path: Path, local_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (lethal, volumes):  # for the workers, which do not import tests
        register_pickle_by_value(module)
    write_volumes(tmp_path / "volumes", patients=8)
    make_lethal(tmp_path / "volumes" / "patient2_0_t1.npz", IN_HEADER)
    make_lethal(tmp_path / "volumes" / "patient5_0_t2.npz", IN_PIXELS)
    folder = Store(tmp_path / "volumes")

    def run() -> dict[str, tuple[str, str | None]]:
        prepared = ingested(
            tmp_path,
            Lethal(),
            [Input("", folder, folder.files(), assemble)],
            ["lesion"],
            with_lesion,
            rows_per_shard=3,
            key=None,
        )
        table = prepared.private
        names = table["path"].str.rsplit("/", n=1).str[1]
        assert sorted(prepared.index["patient_id"]) == [f"patient{i}" for i in (0, 1, 3, 4, 6, 7)]
        return dict(zip(names, zip(table["status"], table["reason"], strict=True), strict=True))

    found = run()
    assert found["patient2_0_t1.npz"] == ("quarantined", TWICE)
    assert found["patient2_0_t2.npz"] == ("quarantined", "a channel of its case is missing")
    assert {found[f"patient5_0_{name}.npz"] for name in ("t1", "t2", "mask")} == {("quarantined", TWICE)}
    assert found["broken.npz"] == ("quarantined", "not a .npz file")
    assert [status for status, _ in found.values()].count("ok") == 6 * 3
    said = capsys.readouterr().err
    assert "headers: 1 of 1 tasks failed; their files are read one by one" in said
    assert "shards: 1 of 3 tasks failed; their files are read one by one" in said
    assert run() == found  # nothing is tried again
    assert "failed" not in capsys.readouterr().err
