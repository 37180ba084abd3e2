"""How fresh a hop is meant to be: the slowest in a hundred, from the event on."""

GOALS_MS = {"gradient": 300, "serving_row": 500, "vector": 500, "recommendation": 500}
