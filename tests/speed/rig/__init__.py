"""What `measure.py` is made of: servers, load, rows and the report."""
