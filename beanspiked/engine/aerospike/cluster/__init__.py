"""This front-end among the others: sessions, usage, news."""
