"""Parts of a screen, one a file: they hold no model, no database and no socket, and post typed messages."""
