"""The parts of examples/compare_systems.py."""
