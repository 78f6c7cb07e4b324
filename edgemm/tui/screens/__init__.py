"""Whole screens, one a file: each is given its data and gives back what the user chose."""
