"""Files in and out: pictures, videos, depth images, arrays, pickles, and files that appear whole or not at all."""
