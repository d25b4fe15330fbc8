"""Sums about pensions, exact to the penny, from dated figures: what a model must not work out by itself.

None of them recommends anything: each says what follows from what was passed in, with the figures that it used, where
they come from, and what it leaves out.
"""

from guidance_agent.calculators.pension_calculators import PensionCalculators

__all__ = ["PensionCalculators"]
