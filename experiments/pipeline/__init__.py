"""The stages of a run, its folder, its settings, and what the stages need."""
