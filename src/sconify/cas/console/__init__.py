"""The console: pages of a CAS for people, made on the server, without scripts."""
