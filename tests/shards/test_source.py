from __future__ import annotations

from medray.shards.source import named


def test_a_file_that_does_not_name_itself_goes_by_its_name() -> None:
    assert named([{"item_id": None}, {"item_id": "1.2.3"}], "films/1.2/00000013.005.png") == [
        {"item_id": "00000013.005"},
        {"item_id": "1.2.3"},
    ]
