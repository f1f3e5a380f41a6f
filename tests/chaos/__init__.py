"""The real server under abuse, while well-behaved devices talk to it: ``make abuse``, and a short run in the suite."""
