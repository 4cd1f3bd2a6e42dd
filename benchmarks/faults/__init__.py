"""Submissions while processes, machines and servers fail; afterwards nothing is lost, doubled or left."""
