"""The terminal screens: they draw what the engines tell and turn keys into calls; the only place that knows Textual."""
