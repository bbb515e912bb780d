"""The report's page: Jinja's template, with its style inside."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Images: {{ report.location|printable }}</title>
<style>
:root { --ink: #222; --faint: #666; --line: #ddd; --error: #b3261e; --warning: #8a5a00; --ok: #00694b; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; color: var(--ink);
  max-width: 1120px; margin: 0 auto; padding: 24px; background: #fff; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 20px; margin: 40px 0 8px; } h3 { font-size: 16px; margin: 0; }
p { margin: 6px 0; } .faint { color: var(--faint); } .name { overflow-wrap: anywhere; }
.verdict { border-left: 8px solid; padding: 12px 16px; margin: 18px 0; font-size: 18px; background: #f6f6f6; }
.verdict.error { border-color: var(--error); } .verdict.warning { border-color: #e69f00; }
.verdict.ok { border-color: #009e73; }
table { border-collapse: collapse; margin: 8px 0; } td, th { padding: 5px 14px 5px 0; text-align: left;
  border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.badge { display: inline-block; padding: 1px 9px; border-radius: 9px; color: #fff; font-size: 13px;
  white-space: nowrap; }
.badge.error { background: var(--error); } .badge.warning { background: var(--warning); }
.finding { border: 1px solid var(--line); border-radius: 8px; padding: 14px 18px; margin: 16px 0; }
.finding h3 { margin-bottom: 4px; }
.do { background: #eef6f2; border-left: 4px solid #009e73; padding: 6px 12px; margin: 10px 0; }
.group { display: flex; flex-wrap: wrap; gap: 12px; padding: 10px 0; }
.group + .group { border-top: 1px dashed var(--line); }
figure { margin: 0; width: 222px; } figure img, .broken { display: block; max-width: 220px;
  border: 1px solid var(--line); }
.small figure { width: 168px; } .small figure img { max-width: 166px; }
.broken { width: 160px; height: 90px; display: grid; place-items: center; color: var(--faint); background:
  repeating-linear-gradient(45deg, #f4f4f4, #f4f4f4 8px, #eaeaea 8px, #eaeaea 16px); }
figcaption { font-size: 12px; line-height: 1.35; overflow-wrap: anywhere; }
figcaption span { display: block; color: var(--faint); }
svg { width: 100%; max-width: 720px; font: 12px system-ui, Arial, sans-serif; } svg text { fill: var(--ink); }
svg .axis { stroke: #bbb; }
details { margin: 8px 0; } li { margin: 4px 0; overflow-wrap: anywhere; } a { color: #00518a; }
code { overflow-wrap: anywhere; }
@media print { .finding, figure { break-inside: avoid; } body { max-width: none; } }
</style>
</head>
<body>
{% macro picture(one) %}
<figure>
{% if one.data %}<img src="{{ one.data }}" alt="{{ one.name|printable }}">
{% else %}<div class="broken">no picture</div>{% endif %}
<figcaption>{{ one.name|printable }}
{% for line in one.lines %}<span>{{ line|printable }}</span>{% endfor %}</figcaption>
</figure>
{% endmacro %}
<header>
<h1>Are these images ready to train on?</h1>
<p class="name"><strong>{{ report.location|printable }}</strong></p>
<p class="faint">{{ "{:,}".format(report.images|length) }} images, checked {{ made }}
{% if report.seconds %} in {{ "%.1f"|format(report.seconds) }} s{% endif %}. Nothing was changed or deleted.</p>
{% set grave = "error" if report.stops else "warning" if report.warnings else "ok" %}
<div class="verdict {{ grave }}">{{ report.verdict }}</div>
</header>

{% if findings %}
<h2>What was found</h2>
<p class="faint">An error stops training until it is mended. A warning does not, but the model may turn out worse than
its figures say.</p>
<table>
<tr><th></th><th>What</th><th class="number">Images</th></tr>
{% for shown in findings %}
<tr><td><span class="badge {{ shown.severity }}">{{ shown.severity }}</span></td>
<td><a href="#{{ shown.anchor }}">{{ shown.title }}</a>
{% for summary in shown.summaries %}<div class="name">{{ summary|printable }}</div>{% endfor %}</td>
<td class="number">{{ "{:,}".format(shown.images) if shown.images else "" }}</td></tr>
{% endfor %}
</table>
{% endif %}

<h2>What to do next</h2>
<ol>
{% for step in steps %}
<li>{{ step|printable }}</li>
{% endfor %}
</ol>

{% if dropped %}
<h2>Left out</h2>
<p>{{ dropped|length }} broken pictures are left out, as was asked for. The files stay where they are.</p>
<ul>
{% for uri, reason in dropped[:200] %}
<li>{{ uri|printable }} <span class="faint">({{ reason|printable }})</span></li>
{% endfor %}
{% if dropped|length > 200 %}<li>and {{ dropped|length - 200 }} more</li>{% endif %}
</ul>
{% endif %}

{% if repair %}
<h2>Near duplicates kept together</h2>
<p>{{ repair|join(" ") }}</p>
{% if report.repair.moved %}
<details><summary>Pictures whose split changed</summary><ul>
{% for uri, before, after in report.repair.moved[:200] %}
<li>{{ uri|printable }}: {{ before }} → {{ after }}</li>
{% endfor %}
{% if report.repair.moved|length > 200 %}<li>and {{ report.repair.moved|length - 200 }} more</li>{% endif %}
</ul></details>
{% endif %}
{% endif %}

<h2>How many of what</h2>
<table>
<tr><th>Class</th><th class="number">Images</th>
{% if divided %}<th class="number">in training</th><th class="number">in validation</th>{% endif %}
{% if grouped %}<th class="number">Parts or lots (groups)</th>{% endif %}
{% if lots %}<th class="number">Lots</th>{% endif %}
{% if located %}<th class="number">with a mask</th><th class="number">with boxes</th>{% endif %}</tr>
{% for count in counts %}
<tr><td class="name">{{ count.name|printable }}</td><td class="number">{{ "{:,}".format(count.images) }}</td>
{% if divided %}<td class="number">{{ count.train }}</td><td class="number">{{ count.validation }}</td>{% endif %}
{% if grouped %}<td class="number">{{ count.groups }}</td>{% endif %}
{% if lots %}<td class="number">{{ count.lots }}</td>{% endif %}
{% if located %}<td class="number">{{ count.masks }}</td><td class="number">{{ count.boxes }}</td>{% endif %}</tr>
{% endfor %}
</table>
{% if lots %}
<details{% if lots|length <= 12 %} open{% endif %}><summary>Images of each lot</summary>
<table><tr><th>Lot</th><th class="number">good</th><th class="number">bad</th></tr>
{% for lot, good, bad in lots %}
<tr><td class="name">{{ lot|printable }}</td><td class="number">{{ good }}</td><td class="number">{{ bad }}</td></tr>
{% endfor %}
</table>{% if more_lots %}<p>and {{ more_lots }} more lots</p>{% endif %}</details>
{% endif %}

<h2>What they look like</h2>
{% if located %}<p class="faint">Masks and boxes of the set are drawn in orange.</p>{% endif %}
{% for name, count, pictures in samples %}
<h3 class="name">{{ name|printable }} <span class="faint">({{ "{:,}".format(count) }})</span></h3>
<div class="group small">
{% for one in pictures %}{{ picture(one) }}{% else %}<p>None could be decoded.</p>{% endfor %}
</div>
{% endfor %}
{% if more_classes %}<p>and {{ more_classes }} more classes</p>{% endif %}

{% if findings %}
<h2>Each finding in full</h2>
{% for shown in findings %}
<section class="finding" id="{{ shown.anchor }}">
<h3><span class="badge {{ shown.severity }}">{{ shown.severity }}</span> {{ shown.title }}</h3>
{% for summary in shown.summaries %}
<p class="name">{{ summary|printable }}</p>
{% endfor %}
<p class="faint">{{ shown.meaning }}</p>
{% for advice in shown.advice %}
<p class="do"><strong>What to do:</strong> {{ advice|printable }}</p>
{% endfor %}
{% if shown.figures %}
<details><summary>Figures</summary>
{% for figures in shown.figures %}
<table>
{% for name, value in figures.items() %}
<tr><td class="name">{{ name|printable|replace("_", " ") }}</td><td class="number name">{{ value|figure }}</td></tr>
{% endfor %}
</table>
{% endfor %}
</details>
{% endif %}
{% for group in shown.groups %}
<div class="group">{% for one in group %}{{ picture(one) }}{% endfor %}</div>
{% endfor %}
{% if shown.names %}
<details><summary>{{ "{:,}".format(shown.names|length + shown.unnamed) }} more images</summary><ul>
{% for name in shown.names %}
<li>{{ name|printable }}</li>
{% endfor %}
{% if shown.unnamed %}<li>and {{ "{:,}".format(shown.unnamed) }} more</li>{% endif %}
</ul></details>
{% endif %}
</section>
{% endfor %}
{% endif %}

<h2>How classes differ as pictures</h2>
<p class="faint">One row per class, on one axis. Rows of good and bad parts should look much alike: where they do
not, a model may learn the light, the camera or the compression instead of the defect.</p>
{% for title, reading, chart in charts %}
<h3>{{ title }}</h3>
<p class="faint">{{ reading }}</p>
{{ chart }}
{% endfor %}
</body>
</html>
"""
