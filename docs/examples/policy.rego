package mcp.gateway

# What no rule allows is denied.
default allow := false

# Analysts may see which tools there are.
allow if {
	input.action == "gateway:tool:discover"
	"analyst" in input.user.roles
}

# They may ask for the time in Europe, and nowhere else.
allow if {
	input.action == "gateway:tool:invoke"
	"analyst" in input.user.roles
	input.tool.name == "get_current_time"
	startswith(input.parameters.timezone, "Europe/")
}
