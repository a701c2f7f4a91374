# The policy of `sark demo`: who may do what, decided on the arguments of each call.
package mcp.gateway

default allow := false

analyst if "analyst" in input.user.roles

# Seeing that a tool exists is no harm.
allow if {
	analyst
	input.action == "gateway:tool:discover"
}

# An analyst may read the database, whatever the tool would let anybody do.
allow if {
	analyst
	input.server.name == "database"
	input.tool.name == "query"
	not destructive
}

allow if {
	analyst
	input.server.name == "database"
	input.tool.name == "report"
}

allow if {
	analyst
	input.server.name == "directory"
	input.tool.name == "lookup"
}

destructive if regex.match(`(?i)\b(alter|create|delete|drop|insert|replace|truncate|update)\b`, input.parameters.sql)

reason := "this statement changes data" if destructive

# Who looks people up sees neither mail addresses nor card numbers.
obligations := [{"type": "redact_result", "patterns": ["email", "credit_card"]}] if {
	input.server.name == "directory"
}
