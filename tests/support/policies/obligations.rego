# An allow that binds: results are masked and measured, and a parameter is stripped by path.
package mcp.gateway

import rego.v1

default allow := false

allow if input.user.id == "alice"

obligations contains {"type": "redact_result", "keys": ["ssn"], "patterns": ["email"]}

obligations contains {"type": "strip_parameters", "paths": ["/options/*/secret"]}

obligations contains {"type": "limit_result", "bytes_max": 4096} if input.tool.sensitivity_level == "high"
