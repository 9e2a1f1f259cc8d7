"""Tubes: their puts, takes, held and due jobs, and their end."""
