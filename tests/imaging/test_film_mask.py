from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from medray.imaging.film_mask import read_mask
from medray.imaging.types import Unreadable

HAND = np.zeros((40, 30), np.uint8)
HAND[10:30, 5:20] = 1


def png(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def palette(places: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(places, "P")
    image.putpalette([value for colour in colours for value in colour])
    return image


def with_alpha(colour: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([colour, colour, colour, alpha]), "RGBA")


WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (128, 0, 0)
IMAGES = {
    "0 and 1": Image.fromarray(HAND),
    "0 and 255": Image.fromarray(HAND * 255),
    "0 and 100": Image.fromarray(HAND * 100),
    "one bit": Image.fromarray(HAND * 255).convert("1"),
    "16 bits": Image.fromarray(HAND.astype(np.uint16)),
    "colour": Image.fromarray(np.dstack([HAND * 0, HAND * 200, HAND * 0])),
    "palette": palette(HAND, BLACK, RED),
    "palette of white": palette(HAND, BLACK, WHITE),
    "palette the other way round": palette(1 - HAND, WHITE, BLACK),
    "palette without black": palette(HAND, (68, 1, 84), (253, 231, 37)),
    "alpha": with_alpha(np.full_like(HAND, 255), HAND * 255),
    "opaque": with_alpha(HAND * 255, np.full_like(HAND, 255)),
    "grey and alpha": with_alpha(HAND * 255, HAND * 128).convert("LA"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_masks_as_tools_leave_them(name: str) -> None:
    found = read_mask(png(IMAGES[name]))
    assert found.dtype == np.uint8
    assert np.array_equal(found, HAND)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png(Image.fromarray(HAND * 0)), "every pixel of it is the same"),
        (png(Image.fromarray(HAND * 0 + 255)), "every pixel of it is the same"),
        (png(Image.fromarray(HAND * 255), "JPEG"), "jpeg, not PNG"),
        (png(Image.fromarray(HAND))[:60], "damaged pixels"),
        (b"text", "a damaged PNG or JPEG file"),
        (png(Image.fromarray(np.zeros((4, 4), np.uint8))), "too small"),
    ],
)
def test_what_is_no_mask_is_one_line(data: bytes, message: str) -> None:
    with pytest.raises(Unreadable, match=message) as error:
        read_mask(data)
    assert "\n" not in str(error.value)
