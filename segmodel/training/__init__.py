"""From data to a trained run folder (Sec. 6, 7.1.2)."""
