package openapi

import (
	"fmt"
	"sync"

	"go.yaml.in/yaml/v3"
)

// Enum returns the values that a schema of the document allows, in the document's order. The document is our own, so a
// schema that it lacks or that is no enum of words is a mistake of whoever asks.
func Enum(schema string) []string {
	values := enums()[schema].Enum
	if len(values) == 0 {
		panic("openapi: " + schema + " is no enum")
	}
	return values
}

type enum struct {
	Enum []string `yaml:"enum"` // null reads as ""
}

var enums = sync.OnceValue(func() map[string]enum {
	var doc struct {
		Components struct {
			Schemas map[string]enum `yaml:"schemas"`
		} `yaml:"components"`
	}
	if err := yaml.Unmarshal(YAML, &doc); err != nil {
		panic(fmt.Sprintf("openapi: %v", err))
	}
	return doc.Components.Schemas
})
