"""Looking inside a run: its way from noise to picture, its loss per level, its schedule, how sure it is."""
