from __future__ import annotations

import pytest

from medray.shards.folders import of_model


def test_results_of_a_model_lie_below_its_name() -> None:
    assert of_model("hands-2.1") == ("models", "hands-2.1")


@pytest.mark.parametrize("name", ["..", "../up", "a/b", ".hidden", "a b", "x" * 101])
def test_a_name_that_leads_elsewhere_names_no_model(name: str) -> None:
    with pytest.raises(ValueError, match="^--name .*: letters, digits, dots and dashes only") as refused:
        of_model(name)
    assert "\n" not in str(refused.value)
