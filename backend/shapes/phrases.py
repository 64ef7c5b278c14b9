"""Phrases that describe objects of a clip."""

from dataclasses import dataclass

from backend.shapes.things import Thing


@dataclass(frozen=True, slots=True)
class ShapePhrase:
    """A colour, a shape, both, or neither (any shape)."""

    colour: str | None
    shape: str | None

    def names(self, thing: Thing) -> bool:
        """Whether the phrase matches an object."""
        return self.colour in (None, thing.colour) and self.shape in (None, thing.shape)

    def text(self, plural: bool = False) -> str:
        """As a person types it: "red circle", "circles", "red shape"."""
        noun = (self.shape or "shape") + ("s" if plural else "")
        return f"{self.colour} {noun}" if self.colour else noun
