"""Drawn hands of known age, pose and mirror."""

from medray.systems.boneage.phantoms.films import DEMO, PhantomHands, PhantomSpec

__all__ = ["DEMO", "PhantomHands", "PhantomSpec"]
