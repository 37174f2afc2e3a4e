"""The suites that ship with ltrobust, one YAML file each."""
