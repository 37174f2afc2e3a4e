"""The defenses, one file each. Importing this package registers all of them."""

from __future__ import annotations

from ltrobust.methods import at_bsl, pgd_at, robal, taet, trades

__all__ = ["at_bsl", "pgd_at", "robal", "taet", "trades"]
