"""A drawn head on planning CT: organs from a brain of a litre to lenses of a fifth of a millilitre, in a pose of its own.

Millimetres run towards head, back and left from the middle between the ears, as ``tasks.ct_rows.AXES`` has them. It teaches that
machinery learns; it is no atlas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medray.imaging.phantom.shapes import Ball, Inside, Points, Rod, affine_of, posed

SPACING_MM = (3.0, 2.5, 2.5)
SHAPE = (46, 84, 72)
AFFINE = affine_of(SHAPE, SPACING_MM)
"""Index (d, h, w) → RAS+ mm, 0 in the middle of the image."""


@dataclass(frozen=True)
class Arch:
    """A jaw: a bent bar of bone, open towards the back."""

    middle: tuple[float, float, float]
    radius: float
    thick: float
    height: float

    def __call__(self, at: Points) -> np.ndarray:
        up, back, left = np.moveaxis(at - np.array(self.middle), -1, 0)
        around = np.abs(np.hypot(back * 0.8, left) - self.radius) < self.thick
        return np.asarray(around & (np.abs(up) < self.height) & (back < 0.55 * self.radius))


def mirrored(middle: tuple[float, float, float]) -> tuple[float, float, float]:
    return (middle[0], middle[1], -middle[2])


def _pair(
    name: str, middle: tuple[float, float, float], radii: tuple[float, float, float], hu: float
) -> dict[str, tuple[Inside, float]]:
    return {f"{name}_L": (Ball(middle, radii), hu), f"{name}_R": (Ball(mirrored(middle), radii), hu)}


HEAD, NECK, SKULL = Ball((10, 0, 0), (75, 92, 72)), Ball((-75, 12, 0), (70, 56, 52)), Ball((14, 0, 0), (64, 82, 62))
CHIN = Ball((-42, -28, 0), (34, 62, 58))
FAT = {side: Ball((2, -66, s * 30), (15, 20, 15)) for side, s in (("L", 1), ("R", -1))}
CSF = Ball((6, -10, 0), (9, 13, 14))
SPINE = Rod((-44, 26, 0), (-160, 34, 0), 14.0)
ORGANS: dict[str, tuple[Inside, float]] = {
    "Brain": (Ball((20, 0, 0), (56, 76, 56)), 34.0),
    "Bone_Mandible": (Arch((-45, -34, 0), 38, 6, 10), 900.0),
    **_pair("Parotid", (-26, 12, 54), (21, 15, 11), -30.0),
    "Brainstem": (Ball((-14, 22, 0), (24, 13, 15)), 64.0),
    "SpinalCord": (Rod((-34, 26, 0), (-160, 34, 0), 6.0), 50.0),
    **_pair("Eye", (2, -72, 31), (11, 11, 11), 12.0),
    "OpticChiasm": (Rod((6, -12, -7), (6, -12, 7), 3.2), 110.0),
    **_pair("Lens", (2, -81, 31), (4, 2.6, 4), 110.0),
}
"""Name → where it is, and its HU; later ones are drawn over earlier ones."""
SMALL = ("Lens_L", "Lens_R", "OpticChiasm")


def draw(rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A patient's CT in HU, int16, and its organs, bool: (D, H, W) of SHAPE.

    Size, pose and the place of every organ differ; eyes and lenses move together.
    """
    at = posed(SHAPE, SPACING_MM, (12.0, 0.0, 0.0), rng)  # the neck is below
    place = {name: rng.normal(0, 1.2, 3) for name in ORGANS}
    for side in "LR":
        place[f"Lens_{side}"] = place[f"Eye_{side}"]
    hu = np.full(SHAPE, -1000.0)
    hu[HEAD(at) | NECK(at) | CHIN(at)] = 25.0 + rng.normal(0, 4)
    hu[SKULL(at)] = 700.0
    hu[SPINE(at)] = 350.0
    hu[CSF(at)] = 8.0
    for fat in FAT.values():
        hu[fat(at)] = -90.0
    masks = {}
    for name, (inside, value) in ORGANS.items():
        mask = inside(at - place[name])
        if name == "Brain":
            mask &= SKULL(at)
        masks[name] = mask
        hu[mask] = value + rng.normal(0, 4)
        if name == "Brain":
            hu[CSF(at)] = 8.0
    masks["Brain"] &= ~(masks["Brainstem"] | masks["OpticChiasm"])
    hu = ndimage.gaussian_filter(hu, (0.4, 0.5, 0.5)) + rng.normal(0, 8, SHAPE)
    return np.clip(np.rint(hu), -1000, 3000).astype(np.int16), masks
