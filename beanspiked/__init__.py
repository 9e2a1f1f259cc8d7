"""A drop-in beanstalkd whose jobs live in a store that can outgrow one machine.

Importing this package loads nothing else: the server has 100 ms from exec to listen.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
