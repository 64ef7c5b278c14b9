"""The engine `edgetam`."""

from backend.engines.edgetam import weights
from backend.engines.edgetam.image_encoder import EdgeTamImageEncoder
from backend.engines.edgetam.tracker import EdgeTamTracker
from backend.engines.sam.open_engine import OpenEngine


class EdgeTamEngine(OpenEngine):
    """One EdgeTAM for all sessions; see `OpenEngine`."""

    name = "edgetam"
    load_weights = staticmethod(weights.load_model)
    image_encoder, tracker = EdgeTamImageEncoder, EdgeTamTracker
