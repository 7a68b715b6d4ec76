"""Conditions: from what a user asks for to what a network takes."""
