"""What is aimed at. GOALS_MS: how fresh a hop is meant to be, the slowest in a hundred, from the event on."""

GOALS_MS = {"gradient": 300, "serving_row": 500, "vector": 500, "recommendation": 500}

FOLD_OF_REDIS = 4.0  # events folded, of Redis doing the same updates
FEATURES_MS = {"multiget.local": 2.0, "multiget.flight": 5.0, "readable": 200.0}  # the slowest in a hundred, beside updates
