"""The engine `sam2`."""

from backend.engines.sam.open_engine import OpenEngine
from backend.engines.sam.tracker import Tracker
from backend.engines.sam2 import weights
from backend.engines.sam2.image_encoder import Sam2ImageEncoder


class Sam2Tracker(Tracker):
    """SAM 2's tracker, which uses the last frames as memory, whatever their scores."""

    min_eff_iou = None


class Sam2Engine(OpenEngine):
    """One SAM 2 model for all sessions; see `OpenEngine`."""

    name = "sam2"
    load_weights = staticmethod(weights.load_model)
    image_encoder, tracker = Sam2ImageEncoder, Sam2Tracker
