"""Helpers shared by every room of the house: nothing here is public."""
