"""Where state outlives a call: the audit log on disk. Black."""
