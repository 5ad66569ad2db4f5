"""The look of a page: its style sheet and its template."""

from __future__ import annotations

import jinja2

CSS = """
:root { color-scheme: light dark; --paper: #f5f6f8; --card: #fff; --ink: #1b2430; --faint: #6b7787; --grid: #dbe0e7;
  --accent: #2f6fdf; --warn: #b4350f; --warn-paper: #fdeee8; --note-paper: #eaf1fd; }
@media (prefers-color-scheme: dark) { :root { --paper: #0f141b; --card: #171e27; --ink: #e6eaf0; --faint: #95a2b3;
  --grid: #2c3643; --accent: #79a8ff; --warn: #ff9b78; --warn-paper: #34201a; --note-paper: #18263c; } }
* { box-sizing: border-box; } html { scroll-behavior: smooth; } p { margin: 0; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
.page { max-width: 1360px; margin: 0 auto; padding: 36px 28px 80px; display: grid;
  grid-template-columns: 210px minmax(0, 1fr); gap: 0 36px; }
header { grid-column: 1 / -1; margin-bottom: 22px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 8px; }
header p { color: var(--faint); margin: 0; max-width: 90ch; white-space: pre-line; }
nav { position: sticky; top: 20px; align-self: start; font-size: 13.5px; max-height: 95vh; overflow-y: auto; }
nav ol { list-style: none; margin: 0; padding: 0; border-left: 2px solid var(--grid); }
nav a { display: block; padding: 4px 0 4px 14px; margin-left: -2px; color: var(--faint); text-decoration: none;
  border-left: 2px solid transparent; }
nav a:hover { color: var(--accent); border-left-color: var(--accent); }
section { background: var(--card); border: 1px solid var(--grid); border-radius: 12px; padding: 22px 26px 26px;
  margin-bottom: 20px; scroll-margin-top: 16px; }
h2 { font-size: 20px; letter-spacing: -0.01em; margin: 0 0 10px; } .scroll + p, figure + p { margin-top: 16px; }
section > p { margin-bottom: 14px; max-width: 88ch; white-space: pre-line; }
figure { margin: 18px 0 0; } figure svg { display: block; width: 100%; height: auto; overflow: visible; }
figure svg text { font-family: inherit !important; }
figcaption, caption { color: var(--faint); font-size: 13px; text-align: left; max-width: 100ch; }
figcaption { margin-top: 8px; } caption { caption-side: bottom; padding-top: 8px; }
.scroll { overflow-x: auto; margin-top: 16px; }
table { border-collapse: collapse; font-size: 13.5px; width: 100%; font-variant-numeric: tabular-nums; }
th { color: var(--faint); font-weight: 600; font-size: 12.5px; text-align: left; vertical-align: bottom;
  border-bottom: 1.5px solid var(--grid); }
th, td { padding: 6px 14px 6px 0; } tbody tr:last-child td { border-bottom: 0; }
td { border-bottom: 1px solid var(--grid); vertical-align: baseline; overflow-wrap: break-word; }
tbody tr:hover td { background: color-mix(in srgb, var(--accent) 7%, transparent); }
.right { text-align: right; } td.right { white-space: nowrap; } th.wide { min-width: 150px; }
td small { display: block; margin: 0; color: var(--faint); font-size: 12px; white-space: nowrap; }
.notice { border-left: 4px solid var(--accent); background: var(--note-paper); border-radius: 6px;
  padding: 11px 16px; margin: 0 0 14px; max-width: 110ch; white-space: pre-line; }
figure + .notice, .scroll + .notice { margin-top: 14px; }
.notice.warning { border-color: var(--warn); background: var(--warn-paper); color: var(--warn); font-weight: 600; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px; margin: 4px 0 16px; }
.figures div { border: 1px solid var(--grid); border-radius: 10px; padding: 12px 16px; }
.figures span, .figures small { display: block; color: var(--faint); font-size: 12.5px; }
.figures b { display: block; font-size: 26px; letter-spacing: -0.02em; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.gallery { display: grid; gap: 14px; }
.tile { min-width: 0; } .tile img, .missing { display: block; width: 100%; border-radius: 6px; background: #000; }
.missing { aspect-ratio: 2; color: #c9d0da; font-size: 12.5px; padding: 12px; }
.tile b { display: block; font-size: 12.5px; margin-top: 6px; overflow-wrap: anywhere; }
.tile span { display: block; color: var(--faint); font-size: 12px; }
.chips { display: flex; flex-wrap: wrap; gap: 4px; margin-top: 4px; }
.chips i { font-style: normal; font-size: 11.5px; line-height: 1.6; padding: 0 6px; border-radius: 4px;
  border: 1px solid var(--grid); color: var(--faint); font-variant-numeric: tabular-nums; white-space: nowrap; }
.chips i.on { border-color: var(--warn); background: var(--warn-paper); color: var(--warn); font-weight: 600; }
@media (max-width: 900px) { .page { display: block; padding: 20px 12px; } nav { position: static; margin: 0 0 18px; }
  section { padding: 16px 14px; } }
@media print { body { background: #fff; } nav { display: none; } .page { display: block; }
  section { border: 0; padding: 0; } .tile, tr, figure { break-inside: avoid; } }
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What a browser may load for a page (Content Security Policy): images that lie in it. A script, a frame, a font or a request to
anywhere is refused even if a text should once escape its escaping. Charts carry styles of their own, so inline ones are allowed."""

TEMPLATE = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
).from_string(
    """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ css }}</style>
</head>
<body>
<div class="page">
<header><h1>{{ title }}</h1><p>{{ lead }}</p></header>
<nav aria-label="Contents"><ol>
{% for section in sections %}
<li><a href="#{{ section.id }}">{{ section.title }}</a></li>
{% endfor %}
</ol></nav>
<main>
{% for section in sections %}
<section id="{{ section.id }}">
<h2>{{ section.title }}</h2>
{% for block in section.blocks %}
{% if block.kind == "text" %}
<p>{{ block.text }}</p>
{% elif block.kind == "notice" %}
<div class="notice{{ ' warning' if block.warning }}">{{ block.text }}</div>
{% elif block.kind == "figures" %}
<div class="figures">
{% for name, value, more in block["items"] %}
<div><span>{{ name }}</span><b>{{ value }}</b><small>{{ more }}</small></div>
{% endfor %}
</div>
{% elif block.kind == "picture" %}
<figure><div style="max-width: {{ block.width }}%">{{ block.svg }}</div>
{% if block.caption %}<figcaption>{{ block.caption }}</figcaption>{% endif %}</figure>
{% elif block.kind == "table" %}
<div class="scroll"><table>
{% if block.caption %}<caption>{{ block.caption }}</caption>{% endif %}
<thead><tr>{% for name, kind in block.header %}<th{% if kind %} class="{{ kind }}"{% endif %}>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in block.rows %}
<tr>{% for cell, right in row %}<td{% if right %} class="right"{% endif %}>{{ cell.text }}{% if cell.note %}<small>{{ cell.note }}</small>{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% elif block.kind == "gallery" %}
<figure><div class="gallery" style="grid-template-columns: repeat(auto-fill, minmax({{ block.tile_px }}px, 1fr))">
{% for tile in block.tiles %}
<div class="tile">
{% if tile.image %}<img src="{{ tile.image }}" alt="{{ tile.title }}" loading="lazy">{% else %}<div class="missing">{{ tile.lines|join(" ") }}</div>{% endif %}
{% if tile.title %}<b>{{ tile.title }}</b>{% endif %}
{% if tile.image %}{% for line in tile.lines %}<span>{{ line }}</span>{% endfor %}{% endif %}
{% if tile.chips %}<div class="chips">{% for text, on in tile.chips %}<i{% if on %} class="on"{% endif %}>{{ text }}</i>{% endfor %}</div>{% endif %}
</div>
{% endfor %}
</div>
{% if block.caption %}<figcaption>{{ block.caption }}</figcaption>{% endif %}</figure>
{% endif %}
{% endfor %}
</section>
{% endfor %}
</main>
</div>
</body>
</html>
"""
)
