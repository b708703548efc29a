package rest

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"maps"
	"slices"
	"strings"
)

//go:embed docs.html
var docsHTML string

// renderDocs makes the page of the OpenAPI document, which needs nothing from elsewhere.
func renderDocs(c *contract) ([]byte, error) {
	page, err := template.New("docs").Funcs(template.FuncMap{
		"upper": strings.ToUpper,
		"json": func(v any) (string, error) {
			b, err := json.MarshalIndent(v, "", "  ")
			return string(b), err
		},
		"param": func(v any) map[string]any {
			if ref, ok := object(v)["$ref"].(string); ok {
				_, v := c.resolve(strings.TrimPrefix(ref, "#"))
				return v
			}
			return object(v)
		},
	}).Parse(docsHTML)
	if err != nil {
		return nil, err
	}
	type entry struct {
		Method, Path string
		Op           map[string]any
		Shared       any // parameters of the path
	}
	var entries []entry
	paths := object(c.doc["paths"])
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := object(paths[path])
		for _, method := range []string{"get", "post", "put", "patch", "delete"} {
			if op := object(item[method]); op != nil {
				entries = append(entries, entry{method, path, op, item["parameters"]})
			}
		}
	}
	var b bytes.Buffer
	err = page.Execute(&b, map[string]any{
		"Info": c.doc["info"], "Entries": entries, "Schemas": object(object(c.doc["components"])["schemas"]),
	})
	return b.Bytes(), err
}
