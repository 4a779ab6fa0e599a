"""`utnet serve`: the local web page. A picture is dropped, its hands are seen, turned and taken along."""
