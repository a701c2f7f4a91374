# What one agent may ask of another, and who may do what at the gateway. Runs unchanged in
# process (regorus) and on an OPA server. No rule gives two answers to one question.
package mcp.gateway

import rego.v1

default allow := false

roles := {role | some role in input.user.roles}

levels := {"untrusted": 0, "limited": 1, "trusted": 2}

needed := {"query": 0, "delegate": 1, "execute": 2}

a2a if input.action == "gateway:a2a:communicate"

allow if {
	a2a
	levels[input.source_agent.trust_level] >= needed[input.capability]
	not startswith(input.target_agent.id, "internal-")
}

allow if {
	not a2a
	"admin" in roles
}

allow if {
	input.action == "gateway:tool:invoke"
	"analyst" in roles
	input.server_name == "db"
	input.resource.sensitivity != "critical"
}

allow if {
	input.action in {"gateway:server:list", "gateway:server:info", "gateway:tool:discover"}
	"analyst" in roles
	input.server_name != "vault"
}

allow if {
	input.action == "gateway:audit:read"
	"auditor" in roles
}

deny contains "no statement drops a table" if {
	is_string(input.parameters.sql)
	contains(lower(input.parameters.sql), "drop")
	not "admin" in roles
}

secret := {"password", "api_key"}

filtered_parameters := {name: value |
	some name, value in input.parameters
	not name in secret
}

reasons contains "an agent of sufficient trust" if a2a

reasons contains "an analyst" if "analyst" in roles

reasons contains "an administrator" if "admin" in roles

reason := concat("; ", sort(reasons))
