"""Three small data sets with ground-truth masks, a trained network for each, and the script that made them."""
