"""Plots for the report: small SVGs without scripts, coloured by the style of the page, so they follow light and dark.

A role has one colour and one mark everywhere: teacher ■, student ●, baseline ◆.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipelines.numbers import percent, short, short_count
from pipelines.run_files import Curve
from pipelines.verdict import Role

POINTS = 120
"""A curve longer than this is averaged over neighbouring steps."""
STEEP = 30.0
"""A curve whose values span a larger factor than this is drawn on a logarithmic axis."""
NAME_WIDTH, NAME_HEIGHT = 90, 14


@dataclass(frozen=True)
class Axis:
    """Numbers to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    about: int = 5
    """How many ticks are wanted."""

    def __call__(self, value: float) -> float:
        """Return the pixel of a number."""
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    @property
    def ticks(self) -> list[float]:
        """Round numbers inside the axis."""
        return decades(self.low, self.high) if self.log else round_numbers(self.low, self.high, self.about)


@dataclass(frozen=True)
class Line:
    """One curve of a panel."""

    role: Role
    title: str
    """Said when pointed at."""
    points: Curve


def score_by_size(evaluation: Mapping[str, Any], title: str) -> Markup:
    """Draw the score of every model over its parameters: small marks are seeds, the large one is their mean."""
    metric, models = evaluation["metric"], evaluation["models"]
    scores = {role: _scores(model, metric) for role, model in models.items()}
    sizes = [model["parameters"] for model in models.values()]
    x = Axis(min(sizes) / 1.8, max(sizes) * 1.8, 56, 424, log=True)
    y = padded([score for found in scores.values() for score in found], 232, 20)
    parts = [_grid(x, y, short_count, percent), _axis_titles("parameters (log)", title, x, y)]
    means = {role: (x(model["parameters"]), y(sum(scores[role]) / len(scores[role]))) for role, model in models.items()}
    for role, (across, height) in means.items():
        parts.append(_whisker(role, across, y(min(scores[role])), y(max(scores[role]))))
        parts += [_mark(role, across, y(score), 3, "seed") for score in scores[role]]
        label = f"{role}: {title} {percent(sum(scores[role]) / len(scores[role]))}"
        label += f", {short_count(models[role]['parameters'])} parameters"
        parts.append(_mark(role, across, height, 7, "mean", label))
    parts += _names(means, (x.start + x.end) / 2)
    return _svg(440, 280, f"{title} by size", parts)


def seed_by_seed(evaluation: Mapping[str, Any], title: str) -> Markup:
    """Draw student and baseline of each seed on one line, and the teacher they learned from."""
    metric, models = evaluation["metric"], evaluation["models"]
    scores = {role: {seed: found[metric] for seed, found in model["seeds"].items()} for role, model in models.items()}
    seeds = sorted({seed for role in ("student", "baseline") for seed in scores.get(role, {})}, key=_natural)
    gap = min(64.0, 192 / max(len(seeds), 1))
    bottom = 36 + gap * len(seeds)
    x = padded([score for found in scores.values() for score in found.values()], 64, 424)
    parts = [_vertical_grid(x, 20, bottom, percent)]
    for score in scores.get("teacher", {}).values():
        parts.append(_rule("teacher", x(score), 20, bottom, f"teacher: {percent(score)}"))
    for row, seed in enumerate(seeds):
        parts += _pair(seed, 36 + gap * (row + 0.5) - 8, x, scores)
    parts.append(Markup('<text class="title" x="244" y="{}" text-anchor="middle">{}</text>').format(bottom + 38, title))
    return _svg(440, bottom + 48, "seed by seed", parts)


def curves(name: str, lines: Sequence[Line], write: Callable[[float], str] = short) -> Markup:
    """Draw one column of the logs over the steps, a line for each seed."""
    values = [value for line in lines for _, value in line.points]
    steps = [step for line in lines for step, _ in line.points]
    log = min(values) > 0 and max(values) / min(values) > STEEP
    x = Axis(0.0, max(*steps, 1.0), 36, 232, about=3)
    y = Axis(min(values) / 1.2, max(values) * 1.2, 122, 10, log=True) if log else padded(values, 122, 10, about=3)
    parts = [_grid(x, y, short_count, write)]
    parts += [_polyline(line, x, y) for line in lines]
    return _svg(240, 144, f"{name} over steps", parts)


def thinned(points: Curve, most: int = POINTS) -> Curve:
    """Average neighbouring points, so that at most `most` are left."""
    width = math.ceil(len(points) / most)
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [(sum(s for s, _ in group) / len(group), sum(v for _, v in group) / len(group)) for group in groups]


def padded(values: Sequence[float], start: float, end: float, about: int = 5) -> Axis:
    """Return an axis that holds the values with some air around them."""
    low, high = min(values), max(values)
    air = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(low - air, high + air, start, end, about=about)


def round_numbers(low: float, high: float, about: int) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten between the ends: a few of them, `about` times 0.7 to 1.8."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.7)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten between the ends; over a factor of 100, the powers alone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high < 100 * low else (1,)
    return [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]


def _scores(model: Mapping[str, Any], metric: str) -> list[float]:
    return [seed[metric] for seed in model["seeds"].values()]


def _natural(seed: str) -> tuple[int, str]:
    return (int(seed) if seed.isdigit() else 0, seed)


def _svg(width: float, height: float, title: str, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, title)
    return head + Markup("").join(parts) + Markup("</svg>")


def _grid(x: Axis, y: Axis, write_x: Callable[[float], str], write_y: Callable[[float], str]) -> Markup:
    rows = [
        Markup('<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>').format(x.start, x.end, y(tick))
        + Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
            x.start - 6, y(tick) + 3.5, write_y(tick)
        )
        for tick in y.ticks
    ]
    base = Markup('<line class="axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(x.start, x.end, y.start)
    return Markup("").join([*rows, base, *_tick_names(x, y.start + 16, write_x)])


def _vertical_grid(x: Axis, top: float, bottom: float, write: Callable[[float], str]) -> Markup:
    lines = [
        Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(x(tick), top, bottom)
        for tick in x.ticks
    ]
    return Markup("").join([*lines, *_tick_names(x, bottom + 16, write)])


def _tick_names(x: Axis, height: float, write: Callable[[float], str]) -> list[Markup]:
    text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>')
    return [text.format(x(tick), height, write(tick)) for tick in x.ticks]


def _axis_titles(across: str, up: str, x: Axis, y: Axis) -> Markup:
    below = Markup('<text class="title" x="{}" y="{}" text-anchor="middle">{}</text>')
    above = Markup('<text class="title" x="{}" y="{}">{}</text>')
    return below.format((x.start + x.end) / 2, y.start + 38, across) + above.format(4, 10, up)


def _mark(role: str, x: float, y: float, size: float, kind: str, title: str = "") -> Markup:
    shapes = {
        "teacher": Markup('<rect x="{0:.1f}" y="{1:.1f}" width="{2:.1f}" height="{2:.1f}" rx="1"/>').format(
            x - size * 0.9, y - size * 0.9, size * 1.8
        ),
        "baseline": Markup('<path d="M{0:.1f} {1:.1f}l{2:.1f} {2:.1f}l-{2:.1f} {2:.1f}l-{2:.1f} -{2:.1f}z"/>').format(
            x, y - size * 1.2, size * 1.2
        ),
    }
    circle = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(x, y, size)
    said = Markup("<title>{}</title>").format(title) if title else Markup("")
    return Markup('<g class="mark {} {}">{}{}</g>').format(role, kind, said, shapes.get(role, circle))


def _whisker(role: str, x: float, low: float, high: float) -> Markup:
    line = Markup('<line class="whisker {0}" x1="{1:.1f}" x2="{1:.1f}" y1="{2:.1f}" y2="{3:.1f}"/>')
    return line.format(role, x, low, high)


def _names(marks: Mapping[str, tuple[float, float]], middle: float) -> list[Markup]:
    """Write each role beside its mark, on the side that has room, below another name that would touch it."""
    text = Markup('<text class="name {}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    parts, taken = [], list[tuple[float, float]]()
    for role, (across, height) in sorted(marks.items(), key=lambda item: item[1][1]):
        near = [y for x, y in taken if abs(x - across) < NAME_WIDTH]
        height = max([height, *(y + NAME_HEIGHT for y in near)])
        taken.append((across, height))
        side = (across - 13, "end") if across > middle else (across + 13, "start")
        parts.append(text.format(role, side[0], height + 4, side[1], role))
    return parts


def _rule(role: str, x: float, top: float, bottom: float, title: str) -> Markup:
    line = Markup('<g class="rule {0}"><title>{1}</title><line x1="{2:.1f}" x2="{2:.1f}" y1="{3}" y2="{4}"/></g>')
    name = Markup('<text class="name {0}" x="{1:.1f}" y="{2}" text-anchor="middle">{0}</text>')
    return line.format(role, title, x, top, bottom) + name.format(role, x, top - 6)


def _pair(seed: str, height: float, x: Axis, scores: Mapping[str, Mapping[str, float]]) -> list[Markup]:
    parts = [Markup('<text x="56" y="{:.1f}" text-anchor="end">seed {}</text>').format(height + 4, seed)]
    ends = [scores[role][seed] for role in ("baseline", "student") if seed in scores.get(role, {})]
    if len(ends) == 2:
        kind = "won" if ends[1] > ends[0] else "lost"
        link = Markup('<line class="link {0}" x1="{1:.1f}" x2="{2:.1f}" y1="{3:.1f}" y2="{3:.1f}"/>')
        parts.append(link.format(kind, x(ends[0]), x(ends[1]), height))
    for role in ("baseline", "student"):
        if seed in scores.get(role, {}):
            score = scores[role][seed]
            parts.append(_mark(role, x(score), height, 6, "mean", f"{role}, seed {seed}: {percent(score)}"))
    return parts


def _polyline(line: Line, x: Axis, y: Axis) -> Markup:
    points = thinned(line.points)
    path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
    end = f"{x(points[-1][0]):.1f}", f"{y(points[-1][1]):.1f}"
    drawn = Markup('<g class="curve {}"><title>{}</title><polyline points="{}"/><circle cx="{}" cy="{}" r="2.2"/></g>')
    return drawn.format(line.role, line.title, path, *end)
