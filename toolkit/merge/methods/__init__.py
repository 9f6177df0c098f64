"""One small frozen dataclass per method, and the table that names them."""

__all__: list[str] = []
