"""headrace: a stream of interactions, led to a model. See docs/architecture.md."""

__version__ = "0.1.0"
