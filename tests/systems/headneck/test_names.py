from __future__ import annotations

import pytest

from medray.systems.headneck.names import PAIRED, SINGLE, mirrored, organ_of, own_names

WRITTEN = {
    "Parotid_L": ["Parotid_L", "LeftParotid", "Parotid-Lt", "lt parotid", "PAROTID_LEFT", "Glnd Parotid L", "parotid gland (L)", "L Parotid"],
    "Parotid_R": ["RightParotid", "parotis rechts", "Parotid Rt"],
    "Glnd_Submand_L": ["Submandibular-Lt", "SMG_L", "Glnd_Submand_L"],
    "OpticNrv_R": ["Optic-Nerve-Rt", "OpticNrv_R", "right optic nerve"],
    "Eye_L": ["eye_l", "Eyeball Left"],
    "Bone_Mandible": ["Mandible", "MANDIBLE", "Bone_Mandible"],
    "Brainstem": ["BrainStem", "brain stem", "Brainstem", "brain_stem"],
    "SpinalCord": ["SpinalCord", "Spinal-Cord", "spinal cord", "cord"],
    "Esophagus": ["Esophagus", "oesophagus"],
    "OpticChiasm": ["Chiasm", "optic chiasm"],
    "Brain": ["Brain"],
}  # fmt: skip


@pytest.mark.parametrize(("organ", "name"), [(organ, name) for organ, names in WRITTEN.items() for name in names])
def test_what_people_write(organ: str, name: str) -> None:
    assert organ_of(name) == organ


@pytest.mark.parametrize(
    "name",
    [
        "Parotid",
        "Parotids",
        "PTV 70",
        "Parotid_L_PRV",
        "Brain_L",
        "",
        "GTV",
        "left",
        "Parotid L R",
        "body",
        "SpinalCord+5",
        "SpinalCord_05",
        "Cord 5",
        "~Parotid_L",
        "Pharynx",
        "Orbit_L",
    ],
)
def test_what_is_no_organ_of_the_table(name: str) -> None:
    """A pair without a side, a side of what is in the middle, a margin around an organ."""
    assert organ_of(name) is None


def test_the_users_own_table_comes_first() -> None:
    own = own_names(["Ohrspeichel re=Parotid_R", "cord = SpinalCanal"])
    assert organ_of("ohrspeichel RE ", own) == "Parotid_R"
    assert organ_of("Cord", own) == "SpinalCanal"
    assert organ_of("mandible", own) == "Bone_Mandible"


def test_every_name_fits_a_planning_system_and_is_its_own_spelling() -> None:
    for name in [*SINGLE, *(f"{base}_{side}" for base in PAIRED for side in "LR")]:
        assert len(name) <= 16
        assert organ_of(name) == name
        assert mirrored(mirrored(name)) == name
    assert (mirrored("Lens_L"), mirrored("Brainstem")) == ("Lens_R", "Brainstem")
    spellings = [one for table in (PAIRED, SINGLE) for every in table.values() for one in every]
    assert len(spellings) == len(set(spellings))


@pytest.mark.parametrize("pair", ["Parotid", "=Parotid_L", "x="])
def test_a_pair_that_is_none(pair: str) -> None:
    with pytest.raises(ValueError, match=f"--names {pair}: write the name and its organ"):
        own_names([pair])


def test_an_organ_that_is_learned_beside_its_own_self_is_refused() -> None:
    with pytest.raises(ValueError, match="the organ's name is Parotid_L; write 'ohrspeichel li=Parotid_L'"):
        own_names(["ohrspeichel li=ParotidLeft"])
    assert own_names(["Stamm=Larynx2"]) == {"Stamm": "Larynx2"}  # no name of the table's, and the user's own


def test_a_structure_that_serves_optimization_is_no_organ() -> None:
    assert organ_of("_Parotid_L") is None
    assert organ_of("zParotid_L") is None
    assert organ_of("Parotid_L") == "Parotid_L"
