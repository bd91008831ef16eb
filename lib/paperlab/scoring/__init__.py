"""How contenders are trained and scored on a data set: a kind of data a file, see `paperlab.tryout`."""
