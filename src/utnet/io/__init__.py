"""Reading and writing files: pictures, videos, depth images, arrays, pickles, and atomic writes."""
