"""Attacks: the one PGD core, the named evaluation attacks, AutoAttack."""
