"""`utnet serve`: the local web page. Shows the hands of a dropped picture in 3D, for correction and download."""
