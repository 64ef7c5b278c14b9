"""Prometheus metrics of the jobs: https://prometheus.io/docs/concepts/metric_types/."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
"""Seconds."""


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.frames = Counter("sam3_frames", "Frames that the engine has processed", registry=registry)
        self.ended = Counter("sam3_jobs_ended", "Jobs that have ended", ["state"], registry=registry)
        self.phase_seconds = Histogram(
            "sam3_job_seconds", "Seconds that a job spent in a phase", ["phase"], buckets=_BUCKETS, registry=registry
        )
        self.predict_seconds = Histogram(
            "sam3_predict_seconds", "Seconds until a request was answered", buckets=_BUCKETS, registry=registry
        )
        self.worker_deaths = Counter(
            "sam3_engine_losses", "Engine processes that ended unexpectedly", registry=registry
        )
        for state in ("done", "failed", "cancelled"):
            self.ended.labels(state)

    def add_gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is read on every scrape."""
        Gauge(f"sam3_{name}", description, registry=self._registry).set_function(value)

    def add_labelled_gauge(
        self, name: str, description: str, label: str, values: Mapping[str, Callable[[], float]]
    ) -> None:
        """Add a gauge with a value for each of a label's values, read on every scrape."""
        gauge = Gauge(f"sam3_{name}", description, [label], registry=self._registry)
        for value, read in values.items():
            gauge.labels(value).set_function(read)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
