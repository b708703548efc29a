// Package openapi holds the contract of the REST API: the OpenAPI document and the wire types that follow from it. The
// client in pkg/client and the server's half in services/api/rest are generated from the same document.
package openapi

import _ "embed"

//go:generate go run github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2 -config types.config.yaml openapi.yaml

// YAML is the document as it is written.
//
//go:embed openapi.yaml
var YAML []byte
