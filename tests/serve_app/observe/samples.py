"""Prometheus's text, read by Prometheus's own parser."""

from prometheus_client.parser import text_string_to_metric_families


class Samples:
    """`text` by sample: its name and labels, without `model_name`, which every sample has."""

    def __init__(self, text: str) -> None:
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self.models: set[str] = set()
        self.kinds: dict[str, str] = {}
        for family in text_string_to_metric_families(text):
            self.kinds[family.name] = family.type
            for sample in family.samples:
                labels = dict(sample.labels)
                self.models.add(labels.pop("model_name"))
                key = sample.name, frozenset(labels.items())
                assert key not in self._values, f"{key} is there twice"
                self._values[key] = sample.value

    def get(self, name: str, **labels: str) -> float | None:
        return self._values.get((name, frozenset(labels.items())))

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self._values}
