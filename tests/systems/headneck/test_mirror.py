"""Mirrors as an augmentation: left and right change their names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from organ_scans import ORGANS, organ_row

from medray.nn.volume_truth import Truth
from medray.systems.headneck.names import mirrored
from medray.systems.headneck.recipes import small
from medray.systems.headneck.task import in_mirror

TASK = replace(small(), organs=ORGANS, mirror=True, crops=1, foreground_share=0.0, patch_DHW=(16, 20, 24))


def test_a_mirror_renames_left_and_right() -> None:
    organs = ("Brainstem", "Parotid_L", "Parotid_R", "Lens_L")
    sets = np.array([0, 0b0001, 0b0010, 0b0100, 0b1011], np.int64)
    turned, known = in_mirror(organs, sets, np.array([1, 1, 0, 1], np.float32))
    # of Lens_R nothing is learned: where its mirror image lies Lens_L is unknown, not absent
    assert turned.tolist() == [0, 0b0001, 0b0100, 0b0010, 0b0101]
    assert known.tolist() == [1, 0, 1, 0]


def test_crops_of_a_mirrored_head_show_each_organ_on_its_own_side() -> None:
    row, one = organ_row(0), TASK
    seen = set()
    for seed in range(8):
        plain, turned = (
            replace(one, mirror=mirror).train_examples(row, [np.random.default_rng((0, 0, seed))])[0]
            for mirror in (False, True)
        )
        truth = {}
        for name, found in (("plain", plain), ("turned", turned)):
            batch = {k: torch.from_numpy(found[k])[None] for k in ("mask", "sets", "drawn")}
            truth[name] = Truth.of_sets(batch["mask"], batch["sets"], batch["drawn"]).members[0]
        is_turned = not np.array_equal(plain["voxels"], turned["voxels"])
        seen.add(is_turned)
        if not is_turned:
            assert torch.equal(truth["plain"], truth["turned"])
            continue
        np.testing.assert_array_equal(plain["voxels"][..., ::-1], turned["voxels"])
        for k, organ in enumerate(ORGANS):
            assert torch.equal(truth["turned"][k], truth["plain"][ORGANS.index(mirrored(organ))].flip(-1)), organ
    assert seen == {False, True}


def test_what_is_drawn_as_one_sides_organ_is_not_the_other_sides() -> None:
    """Of a head whose left parotid nobody has drawn, the right one still says where it is not: half of such heads otherwise taught
    a network to find both parotids as the left one."""
    task = replace(TASK, mirror=False)
    (example,) = task.train_examples(organ_row(0, hidden=("Parotid_L",)), [np.random.default_rng((0, 0, 1))])
    batch = {name: torch.from_numpy(np.asarray(example[name]))[None] for name in ("mask", "sets", "drawn")}
    truth = task.truth(batch)
    left, right, brainstem = (ORGANS.index(organ) for organ in ("Parotid_L", "Parotid_R", "Brainstem"))
    assert truth.members[0, right].any()
    assert torch.equal(truth.known[0, left], truth.members[0, right])
    assert not truth.members[0, left].any()
    assert truth.known[0, right].all() and truth.known[0, brainstem].all()  # noqa: PT018  both are drawn
