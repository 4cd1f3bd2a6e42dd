"""Slides of the sample, drawn with Pillow and its built-in font: the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from samples import pictures
from samples.talk import TALK_TITLE, TOPICS, Slide

WIDTH, HEIGHT = 640, 360
SCALE = 4  # drawn four times as large and reduced: smooth edges without an antialiasing drawer

MARGIN = 44
PICTURE = 122  # side of the picture's square
DISC = 92  # radius of the disc behind it
DISC_CENTRE = (520, 172)


@dataclass(frozen=True, slots=True)
class Look:
    """Colours of one slide, and its picture."""

    background: str
    disc: str
    text: str
    accent: str
    picture: pictures.Picture


# Dark and light follow one another: each change of slide is a cut for the eye and for any scene detector.
LOOKS: dict[str, Look] = {
    "soil": Look("#3d2c22", "#4d3a2e", "#f6ecdf", "#a9c46c", pictures.sprout),
    "compost": Look("#ecdfc6", "#f6eedd", "#453423", "#7a8f3a", pictures.heap),
    "water": Look("#17405a", "#22506c", "#e9f3f8", "#79c3e6", pictures.drops),
    "bees": Look("#f3dc9b", "#f9eabf", "#43351a", "#c47a12", pictures.bee),
    "market": Look("#6f2f28", "#823e35", "#fbeadf", "#f0a868", pictures.stall),
    "winter": Look("#dde7ee", "#eef4f8", "#25394c", "#47799f", pictures.snowflake),
}


def draw_slides() -> list[Image.Image]:
    """All slides of the talk in order, 640 x 360, RGB."""
    slides = [slide for topic in TOPICS for slide in topic.slides]
    return [_draw(slide, number, len(slides)) for number, slide in enumerate(slides, start=1)]


def _draw(slide: Slide, number: int, count: int) -> Image.Image:
    look = LOOKS[slide.look]
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), look.background)
    draw = ImageDraw.Draw(image)
    _draw_picture(draw, look)
    _write(draw, (MARGIN, 40), TALK_TITLE.upper(), 11, look.accent)
    _write(draw, (MARGIN, 66), slide.title, 31, look.text, weight=0.5)
    _box(draw, (MARGIN, 118, MARGIN + 56, 122), look.accent)
    for index, point in enumerate(slide.points):
        _draw_point(draw, point, 152 + 37 * index, look)
    _write(draw, (WIDTH - MARGIN, HEIGHT - 34), f"{number} / {count}", 12, look.accent, anchor="ra")
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _draw_picture(draw: ImageDraw.ImageDraw, look: Look) -> None:
    x, y = (SCALE * centre for centre in DISC_CENTRE)
    draw.circle((x, y), DISC * SCALE, look.disc)
    half = PICTURE * SCALE / 2
    look.picture(pictures.Canvas(draw, x - half, y - half, PICTURE * SCALE / 100), look.text, look.accent)


def _draw_point(draw: ImageDraw.ImageDraw, point: str, top: int, look: Look) -> None:
    draw.circle(((MARGIN + 4) * SCALE, (top + 12) * SCALE), 3.5 * SCALE, look.accent)
    _write(draw, (MARGIN + 20, top), point, 18, look.text)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    colour: str,
    *,
    weight: float = 0,
    anchor: str = "la",
) -> None:
    """Write `text` at `place`; `weight` thickens it (the built-in font comes in one weight)."""
    font = ImageFont.load_default(size * SCALE)
    xy = place[0] * SCALE, place[1] * SCALE
    draw.text(xy, text, colour, font, anchor=anchor, stroke_width=weight * SCALE, stroke_fill=colour)


def _box(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour: str) -> None:
    draw.rounded_rectangle([side * SCALE for side in box], 2 * SCALE, colour)
