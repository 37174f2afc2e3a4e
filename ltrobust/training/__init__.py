"""The trainer, its engine, schedules and checkpoints."""
