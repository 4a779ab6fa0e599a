"""Programs built on the packages below: the demo, the local web page, the labelling of pictures."""
