"""What counts prove: bounds, radii, certificates. Knows neither torch nor files."""
