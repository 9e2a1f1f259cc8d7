"""Commands that look at many segments before they answer."""
