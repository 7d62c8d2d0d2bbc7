"""The session language: model, parser, substitution, hash and template."""
