"""What was measured, as pages for people: the report of a run, its model card, and blind comparison."""
