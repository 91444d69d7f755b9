package config

import _ "embed"

// schemaText is what the types say, by TestSchema. It is kept as a file so that the
// agent need not carry the library that makes it.
//
//go:embed drover.schema.json
var schemaText string

// Schema is the JSON Schema (draft 2020-12) of the configuration file, for editors.
func Schema() string { return schemaText }
