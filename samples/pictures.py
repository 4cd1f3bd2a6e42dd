"""Six small pictures for the slides, drawn from lines, ellipses and polygons.

Each draws on a square whose corners are (0, 0) and (100, 100), in two colours: `ink` and `accent`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import ImageDraw

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Canvas:
    """A square of 100 x 100 units somewhere on an image; `unit` is the length of one in pixels."""

    draw: ImageDraw.ImageDraw
    left: float
    top: float
    unit: float

    def at(self, point: Point) -> Point:
        return self.left + point[0] * self.unit, self.top + point[1] * self.unit

    def stroke(self, points: Sequence[Point], colour: str, width: float = 4) -> None:
        """A line with round ends and joints."""
        self.draw.line([self.at(point) for point in points], colour, round(width * self.unit), joint="curve")
        for x, y in (points[0], points[-1]):
            self.oval((x, y), width / 2, width / 2, colour)

    def oval(self, centre: Point, rx: float, ry: float, colour: str) -> None:
        corners = self.at((centre[0] - rx, centre[1] - ry)), self.at((centre[0] + rx, centre[1] + ry))
        self.draw.ellipse(corners, colour)

    def shape(self, points: Sequence[Point], colour: str) -> None:
        self.draw.polygon([self.at(point) for point in points], colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: str, radius: float = 2) -> None:
        self.draw.rounded_rectangle((self.at((left, top)), self.at((right, bottom))), radius * self.unit, colour)


Picture = Callable[[Canvas, str, str], None]


def leaf(canvas: Canvas, stem: Point, tip: Point, colour: str, fullness: float = 0.35) -> None:
    """A pointed leaf from `stem` to `tip`; `fullness` is its half width over its length."""
    (x0, y0), (x1, y1) = stem, tip
    steps = [step / 24 for step in range(25)]
    side = [(t, fullness * math.sin(math.pi * t) ** 0.8 if 0 < t < 1 else 0.0) for t in steps]
    outline = side + [(t, -width) for t, width in reversed(side)]
    canvas.shape([(x0 + t * (x1 - x0) - w * (y1 - y0), y0 + t * (y1 - y0) + w * (x1 - x0)) for t, w in outline], colour)


def sprout(canvas: Canvas, ink: str, accent: str) -> None:
    """Two leaves on a stem over a mound of earth."""
    canvas.stroke([(50, 76), (50, 58), (50, 42)], accent)
    leaf(canvas, (50, 50), (17, 25), accent)
    leaf(canvas, (50, 44), (80, 15), accent)
    canvas.draw.pieslice((canvas.at((14, 68)), canvas.at((86, 116))), 180, 360, ink)


def heap(canvas: Canvas, ink: str, accent: str) -> None:
    """A wooden bin, filled over the brim, and a leaf."""
    canvas.draw.pieslice((canvas.at((22, 26)), canvas.at((78, 82))), 180, 360, accent)
    leaf(canvas, (52, 27), (74, 8), accent)
    for top in (48, 61, 74):
        canvas.box(14, top, 86, top + 9, ink)
    for left in (18, 74):
        canvas.box(left, 43, left + 8, 90, ink)


def drops(canvas: Canvas, ink: str, accent: str) -> None:
    """Three drops of water."""
    for x, y, size, colour in ((42, 58, 26, accent), (76, 34, 13, ink), (77, 74, 10, ink)):
        canvas.oval((x, y), size, size, colour)
        # The tangents from the tip touch the circle where sin(angle) = 1/2, with the tip two radii away.
        width, height = size * math.cos(math.pi / 6), size / 2
        canvas.shape([(x, y - 2 * size), (x - width, y - height), (x + width, y - height)], colour)


def bee(canvas: Canvas, ink: str, accent: str) -> None:
    """A bee from above, wings spread."""
    for side in (-1, 1):
        leaf(canvas, (50 + 6 * side, 46), (50 + 44 * side, 22), "#ffffff", 0.3)
        leaf(canvas, (50 + 6 * side, 52), (50 + 36 * side, 56), "#ffffff", 0.3)
        canvas.stroke([(50 + 4 * side, 24), (50 + 11 * side, 12)], ink, 2.5)
    canvas.oval((50, 62), 16, 28, accent)
    for y, half in ((52, 14.5), (65, 15.5), (78, 11.5)):
        canvas.stroke([(50 - half + 3, y), (50 + half - 3, y)], ink, 6.5)
    canvas.oval((50, 31), 11, 10, ink)


def stall(canvas: Canvas, ink: str, accent: str) -> None:
    """A market stall with a striped awning."""
    for post in (16, 80):
        canvas.box(post, 30, post + 4, 90, ink)
    for stripe in range(5):
        left, colour = 8 + stripe * 16.8, (accent, ink)[stripe % 2]
        canvas.shape([(left, 14), (left + 16.8, 14), (left + 16.8, 36), (left, 36)], colour)
        canvas.oval((left + 8.4, 36), 8.4, 8.4, colour)
    for x in (31, 44, 57, 70):
        canvas.oval((x, 61), 6.5, 6.5, accent)
    canvas.box(10, 65, 90, 76, ink)


def snowflake(canvas: Canvas, ink: str, accent: str) -> None:
    """Six arms, each with two pairs of branches."""
    for arm in range(6):
        angle = math.radians(60 * arm + 30)
        canvas.stroke([(50, 50), _polar((50, 50), 42, angle)], ink)
        for radius, length in ((19, 10), (30, 8)):
            foot = _polar((50, 50), radius, angle)
            for turn in (-math.pi / 3, math.pi / 3):
                canvas.stroke([foot, _polar(foot, length, angle + turn)], accent, 3.5)


def _polar(centre: Point, radius: float, angle: float) -> Point:
    return centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)
