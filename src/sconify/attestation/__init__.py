"""Evidence of what runs where: parse, verify, judge."""
