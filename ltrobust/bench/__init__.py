"""Plans, runs and stores: everything between a command and its files."""
