"""The embedded data set: what it shows and says, how it is drawn, and how it is read."""
