"""The providers' batch APIs: one module for each wire format behind one small interface."""

__all__: list[str] = []
