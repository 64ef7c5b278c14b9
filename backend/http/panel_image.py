"""Draws the live panel of the labelling page: what the backend does for a task, and a bar."""

from functools import cache
from io import BytesIO

from PIL import Image, ImageDraw

from backend.jobs.task_status import TaskStatus
from backend.tracks.fonts import Font, choose_font

WIDTH, HEIGHT = 640, 44
"""CSS pixels; the picture has twice as many."""
SILENT_AFTER = 25
"""Seconds after the last picture, more than twice the time after which a picture is sent again."""
_SCALE = 2
# Label Studio has a light and a dark page, and the picture does not know which: these read well on both.
_TEXT, _TRACK = (118, 118, 118, 255), (128, 128, 128, 80)
_FRAME_SIZE, _FRAME_GROUND = (640, 360), (30, 34, 40)
COLOURS = {
    "idle": (128, 128, 128, 255),
    "busy": (0, 114, 178, 255),
    "done": (0, 158, 115, 255),
    "failed": (213, 94, 0, 255),
}


def draw_panel(status: TaskStatus, *, is_last: bool = False) -> bytes:
    """The panel as PNG, on a transparent background: two lines at most, or one above a bar.

    A browser goes on showing a picture that comes no more. So it is an animation, whose second picture says that the
    backend is silent; the next one that comes replaces it before that.

    Args:
        is_last: no picture comes after it.
    """
    image, out = _draw(status), BytesIO()
    if is_last:
        image.save(out, "PNG")
    else:
        image.save(out, "PNG", save_all=True, append_images=[_silence()], duration=[SILENT_AFTER * 1000, 1000], loop=1)
    return out.getvalue()


def draw_no_frame() -> bytes:
    """What stands in place of the newest frame before there is one, as JPEG."""
    image, out = Image.new("RGB", _FRAME_SIZE, _FRAME_GROUND), BytesIO()
    font, text = choose_font("While a track is computed, its newest frame is here.", 18)
    width, height = _FRAME_SIZE
    ImageDraw.Draw(image).text((width / 2, height / 2), text, (170, 170, 170), font, anchor="mm")
    image.save(out, "JPEG")
    return out.getvalue()


@cache
def _silence() -> Image.Image:
    text = f"The backend has been silent for {SILENT_AFTER} s: it was stopped or is out of reach. Nothing is answered."
    return _draw(TaskStatus(text, "failed"))


def _draw(status: TaskStatus) -> Image.Image:
    image = Image.new("RGBA", (WIDTH * _SCALE, HEIGHT * _SCALE))
    pen, colour = ImageDraw.Draw(image), COLOURS[status.tone]
    dot, top = 10 * _SCALE, 6 * _SCALE
    pen.ellipse((0, top, dot, top + dot), fill=colour)
    left = dot + 8 * _SCALE
    font, text = choose_font(status.text, 15 * _SCALE)  # phrases and classes may be of any script
    lines = _wrap(text, font, WIDTH * _SCALE - left, 2 if status.progress is None else 1)
    for number, line in enumerate(lines):
        pen.text((left, top + dot / 2 + number * 20 * _SCALE), line, _TEXT, font, anchor="lm")
    if status.progress is not None:
        box = (0, (HEIGHT - 14) * _SCALE, WIDTH * _SCALE - 1, (HEIGHT - 8) * _SCALE)
        pen.rounded_rectangle(box, 3 * _SCALE, fill=_TRACK)
        right = box[2] * min(max(status.progress, 0.0), 1.0)
        if right >= 6 * _SCALE:
            pen.rounded_rectangle((*box[:2], right, box[3]), 3 * _SCALE, fill=colour)
    return image


def _wrap(text: str, font: Font, width: float, max_lines: int) -> list[str]:
    """The text in at most `max_lines` lines of `width` pixels; what is too long is cut with an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > max_lines:
        lines[max_lines - 1 :] = [" ".join(lines[max_lines - 1 :])]
    return [line if font.getlength(line) <= width else _cut(line, font, width) for line in lines]


def _cut(line: str, font: Font, width: float) -> str:
    while line and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line.rstrip()}…"
