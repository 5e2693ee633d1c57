"""Programs for Arm's Ethos-U: lowered in an environment of their own, costed by Vela."""
