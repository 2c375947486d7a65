"""Learning rules: every way an error can reach a layer, in one frame."""
