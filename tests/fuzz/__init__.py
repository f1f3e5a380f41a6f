"""Every decoder of foreign input against a flood of damaged input: ``make fuzz``, and a short run in the suite."""
