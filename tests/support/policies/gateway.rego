# What a small installation decides on: who may query, what a query may say, which parameters
# never leave. Runs unchanged in process (regorus) and on an OPA server.
package mcp.gateway

import rego.v1

default allow := false

invoke if input.action == "gateway:tool:invoke"

roles := {role | some role in input.user.roles}

permissions := {permission | some permission in input.user.permissions}

allow if {
	invoke
	"admin" in roles
}

allow if {
	invoke
	"analyst" in roles
	input.server_name == "db"
	input.tool_name == "query"
}

allow if {
	invoke
	sprintf("%s/%s", [input.server_name, input.tool_name]) in permissions
}

allow if {
	input.action == "gateway:tool:discover"
	count(roles) > 0
}

destructive := {"drop", "delete", "truncate", "alter", "grant"}

words := {word |
	is_string(input.parameters.sql)
	some word in regex.split(`[^a-z]+`, lower(input.parameters.sql))
}

deny contains sprintf("%s is not for this role", [word]) if {
	some word in words & destructive
	not "admin" in roles
}

deny contains "a statement and no more" if {
	is_string(input.parameters.sql)
	contains(trim_right(input.parameters.sql, "; \n\t"), ";")
	not "admin" in roles
}

secret := {"password", "api_key", "token"}

filtered_parameters := {name: value |
	some name, value in input.parameters
	not name in secret
}

reason := "allowed by role or permission" if allow

cache_ttl := 2
