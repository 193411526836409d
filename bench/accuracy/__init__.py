"""The parts of bench/time_to_accuracy.py."""
