"""The parts of `measure.py`: servers, load, rows and the report."""
