from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pandas as pd
import pytest

from medray.report.page import (
    FAINT,
    GRID,
    INK,
    Cell,
    Figures,
    Gallery,
    Notice,
    Picture,
    Section,
    Table,
    Tile,
    chart,
    name_axes,
    plots,
    render,
)

NASTY = "<script>alert('x')</script>&\"<img src=http://evil.example/x>"


def curve(label: str = "x") -> Picture:
    figure, axes = chart(5, 3)
    axes[0, 0].plot([0, 1], [0, 1], "o-", color=INK)
    axes[0, 0].fill_between([0, 1], [0, 1], hatch="//", facecolor="none")  # hatches and markers refer to ids
    name_axes(axes[0, 0], label)
    return Picture(figure, label)


def page(text: str = "plain") -> str:
    frame = pd.DataFrame({text: [text, "b"], "n": [1234567, None], "v": [Cell("0.5", text), 0.123456]})
    image = np.linspace(0, 255, 64 * 48).reshape(48, 64).astype(np.uint8)
    tiles = (Tile(image, text, (text,), ((text, True), ("off", False))), Tile(None, text, (text,)))
    return render(
        text,
        text,
        [
            Section(text, text, curve(text).figure, frame),
            Section("second", more=(Notice(text), Figures(((text, text, text),)), Gallery(tiles, text), curve(text))),
        ],
    )


def outside(html: str) -> list[str]:
    """Everything in a page that a browser would fetch or run."""
    found = re.findall(r"""\b(?:src|href|srcset|poster|action)\s*=\s*["'](?!data:|\#)[^"']*""", html)
    found += re.findall(r"url\((?!#)[^)]*\)|@import[^;]*|<(?:script|link|iframe|object|embed|base)\b[^>]*", html)
    return found


def test_nothing_is_fetched() -> None:
    assert outside(page()) == []
    assert len(outside('<a href="http://x"><script src="y"></script>')) == 3  # the search itself finds


class Needs(HTMLParser):
    """What a page asks of a browser, by the directive of a Content Security Policy that allows it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.policy, self.before, self.found = "", list[str](), set[tuple[str, str]]()
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        elif not self.policy:
            self.before.append(tag)
        if tag in ("img", "image"):
            source = given.get("src") or given.get("xlink:href") or given["href"]
            self.found.add(("img-src", source.partition(":")[0] + ":"))
        if tag == "style" or "style" in given:
            self.found.add(("style-src", "'unsafe-inline'"))
        if tag in ("script", "iframe", "frame", "object", "embed", "video", "audio", "source", "link", "base", "form"):
            self.found.add((tag, ""))
        self.found |= {(name, "") for name in given if name.startswith("on")}


def test_the_policy_allows_what_a_page_needs_and_nothing_else() -> None:
    figure, axes = chart(5, 3)
    axes[0, 0].imshow(np.zeros((4, 4)))  # an image within a drawing
    page_ = render("t", "", [Section("s", figure=figure)])
    assert "<image" in page_
    for html in (page(), page(NASTY), page_):
        needs = Needs(html)
        allowed = {name: words for name, *words in (part.split() for part in needs.policy.split(";"))}
        assert allowed.pop("default-src") == allowed.pop("base-uri") == allowed.pop("form-action") == ["'none'"]
        assert {(name, word) for name, words in allowed.items() for word in words} == needs.found | {
            ("img-src", "data:")
        }
        assert set(needs.before) == {"html", "head", "meta"}  # it holds for what comes after it
    assert Needs("<img src=http://x><script></script><a onclick=y>").found == {
        ("img-src", "http:"), ("script", ""), ("onclick", ""),
    }  # fmt: skip


def test_every_page_is_made_of_the_one_template() -> None:
    root = Path(__file__).resolve().parents[2]
    writing = [path for folder in ("medray", "jobs") for path in (root / folder).rglob("*.py") if "<html" in path.read_text().lower()]  # fmt: skip
    assert [path.name for path in writing] == ["look.py"]


def test_every_text_is_escaped() -> None:
    html = page(NASTY)
    assert outside(html.replace("&lt;img src=http://evil.example/x&gt;", "")) == []
    assert "<script" not in html
    assert "<img src=http" not in html
    # title, heading, contents, text, caption, header and cell and note of the table, notice, headline, tiles, chips, charts
    assert html.count("&lt;script&gt;") >= 18
    assert html.count("<section") == 2


def test_contents_lead_to_sections_and_ids_are_unique() -> None:
    html = page()
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids)) > 20
    targets = re.findall(r'href="#([^"]+)"', html) + re.findall(r"url\(#([^)]+)\)", html)
    assert len(targets) > 4
    assert set(targets) <= set(ids)
    contents = html[html.index("<nav") : html.index("</nav>")]
    assert re.findall(r'<a href="#(s\d)">([^<]*)</a>', contents) == [("s1", "plain"), ("s2", "second")]


def test_charts_take_the_page_s_colours() -> None:
    html = page()
    drawn = html[html.index("<svg") : html.rindex("</svg>")]
    assert "var(--ink)" in drawn
    for colour in (INK, FAINT, GRID):
        assert colour not in drawn
    assert html.count("prefers-color-scheme: dark") == 1
    assert "<metadata" not in drawn


def test_tables_align_numbers_and_show_what_is_missing() -> None:
    frame = pd.DataFrame(
        {"name": ["a", "b"], "count": [12345, 7], "rate": [0.25, np.nan], "mixed": [1, "x"], "empty": [None, None]}
    )
    html = render("t", "", [Section("s", table=frame)])
    assert '<th class="right">count</th>' in html
    assert '<td class="right">12,345</td>' in html
    assert '<td class="right">0.25</td>' in html
    assert '<td class="right">–</td>' in html
    assert "<th>name</th>" in html
    assert "<th>mixed</th>" in html
    assert "<th>empty</th>" in html
    assert "nan" not in html.split("<table>")[1].lower()


def test_an_interval_stands_below_its_value_and_text_is_not_squeezed() -> None:
    frame = pd.DataFrame({"what it adds": ["a few words"], "loss": [Cell("0.5", "0.4 to 0.6")]})
    html = render("t", "", [Section("s", more=(Table(frame, "c", wide=("what it adds",)),))])
    assert '<th class="wide">what it adds</th><th class="right">loss</th>' in html
    assert '<td class="right">0.5<small>0.4 to 0.6</small></td>' in html
    assert re.search(r"td small \{ display: block; margin: 0;", html) is not None
    assert re.search(r"th\.wide \{ min-width: \d+px; \}", html) is not None


def test_a_notice_keeps_its_distance_from_the_caption_above() -> None:
    html = page()
    assert re.search(r"figure \+ \.notice, \.scroll \+ \.notice \{ margin-top: 1\dpx; \}", html) is not None


def test_a_table_without_rows_is_a_header() -> None:
    html = render("t", "", [Section("s", more=(Table(pd.DataFrame({"a": []})),))])
    assert "<th>a</th>" in html


@pytest.mark.parametrize("shape", [(40, 60), (60, 40, 3)])
def test_images_lie_in_the_page(shape: tuple[int, ...]) -> None:
    image = np.zeros(shape, np.uint8)
    image[:20, :, ...] = [200, 60, 10] if len(shape) == 3 else 200
    html = render("t", "", [Section("s", more=(Gallery((Tile(image, "one"),)),))])
    data = re.search(r'src="data:image/webp;base64,([^"]+)"', html)
    assert data is not None
    found = cv2.imdecode(np.frombuffer(base64.b64decode(data[1]), np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    assert found.shape[:2] == shape[:2]
    expected = [10, 60, 200] if len(shape) == 3 else [200, 200, 200]  # OpenCV gives BGR
    np.testing.assert_allclose(found[10, 20], expected, atol=12)
    np.testing.assert_allclose(found[35, 20], 0, atol=12)


def test_the_same_page_has_the_same_bytes_and_leaves_no_trace() -> None:
    before = dict(matplotlib.rcParams)
    assert page() == page()
    assert dict(matplotlib.rcParams) == before


def test_plots_are_pictures_of_charts_and_galleries() -> None:
    image = np.full((10, 20), 255, np.uint8)
    gallery = Gallery((Tile(image), Tile(None, "gone"), Tile(image)), tile_px=500)
    found = plots([Section("A b/C", figure=curve().figure, more=(gallery, "text")), Section("none", "text")])
    assert list(found) == ["a-b-c.png", "images/a-b-c.png"]
    decoded = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in found.values()]
    assert decoded[0][0, 0].tolist() == [255, 255, 255]
    assert decoded[1].shape == (14, 48, 3)
    assert plots([Section("s", more=(Gallery((Tile(None),)),))]) == {}
