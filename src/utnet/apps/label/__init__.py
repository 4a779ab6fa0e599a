"""Pictures without labels -> a `custom` data set, with the labels on which several observers agree."""
