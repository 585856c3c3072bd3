"""What surrounds the questions: arguments, placement, determinism, failures, launcher, versions."""
