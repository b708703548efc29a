package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// contract is the OpenAPI document as the server needs it: what each route takes and who may call it.
type contract struct {
	json   []byte
	doc    map[string]any
	routes map[string]*route // by method and echo's form of the path
}

// route is one operation of the document.
type route struct {
	id        string
	method    string
	path      string // echo's form: /api/vms/:id
	privilege string
	planned   bool
	feature   string // USE flag
	public    bool   // needs no authentication
	follows   bool   // can answer with server-sent events, without an end
	params    []param
	body      *body
}

type param struct {
	name     string
	in       string // path, query or header
	kind     string // integer, boolean, string or array of strings
	required bool
	schema   *jsonschema.Schema
}

type body struct {
	required bool
	schema   *jsonschema.Schema
}

const documentURL = "https://horcrux.invalid/openapi.json"

// loadContract reads an OpenAPI 3.1 document and compiles its schemas.
func loadContract(document []byte) (*contract, error) {
	var tree map[string]any
	if err := yaml.Unmarshal(document, &tree); err != nil {
		return nil, fmt.Errorf("OpenAPI document: %w", err)
	}
	c := &contract{doc: tree, routes: map[string]*route{}}
	var err error
	if c.json, err = json.Marshal(tree); err != nil {
		return nil, fmt.Errorf("OpenAPI document: %w", err)
	}
	resource, err := jsonschema.UnmarshalJSON(bytes.NewReader(c.json))
	if err != nil {
		return nil, fmt.Errorf("OpenAPI document: %w", err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	if err := compiler.AddResource(documentURL, resource); err != nil {
		return nil, fmt.Errorf("OpenAPI document: %w", err)
	}
	for path, item := range object(tree["paths"]) {
		item := object(item)
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			at := "/paths/" + escape(path)
			op, ok := item[strings.ToLower(method)].(map[string]any)
			if !ok {
				continue
			}
			r, err := c.route(compiler, method, path, op, append(
				c.pointers(at+"/parameters", item["parameters"]),
				c.pointers(at+"/"+strings.ToLower(method)+"/parameters", op["parameters"])...))
			if err != nil {
				return nil, fmt.Errorf("OpenAPI document: %s %s: %w", method, path, err)
			}
			c.routes[r.method+" "+r.path] = r
		}
	}
	return c, nil
}

var braces = regexp.MustCompile(`\{([^}]+)\}`)

func (c *contract) route(compiler *jsonschema.Compiler, method, path string, op map[string]any, params []string) (*route, error) {
	r := &route{method: method, path: braces.ReplaceAllString(path, ":$1")}
	r.id, _ = op["operationId"].(string)
	r.privilege, _ = op["x-privilege"].(string)
	r.planned, _ = op["x-not-implemented"].(bool)
	r.feature, _ = op["x-feature"].(string)
	security, given := op["security"].([]any)
	r.public = given && len(security) == 0
	r.follows = object(object(object(object(op["responses"])["200"])["content"])["text/event-stream"]) != nil
	if r.privilege == "" {
		return nil, fmt.Errorf("no x-privilege")
	}
	for _, pointer := range params {
		at, p := c.resolve(pointer)
		schema, err := compiler.Compile(documentURL + "#" + at + "/schema")
		if err != nil {
			return nil, err
		}
		_, s := c.resolve(at + "/schema")
		q := param{schema: schema, kind: "string"}
		q.name, _ = p["name"].(string)
		q.in, _ = p["in"].(string)
		q.required, _ = p["required"].(bool)
		if kind, ok := s["type"].(string); ok {
			q.kind = kind
		}
		r.params = append(r.params, q)
	}
	if request := object(op["requestBody"]); request != nil {
		at := "/paths/" + escape(path) + "/" + strings.ToLower(method) + "/requestBody/content/application~1json/schema"
		schema, err := compiler.Compile(documentURL + "#" + at)
		if err != nil {
			return nil, err
		}
		r.body = &body{schema: schema}
		r.body.required, _ = request["required"].(bool)
	}
	return r, nil
}

// pointers are the JSON pointers of a list's items.
func (c *contract) pointers(at string, list any) []string {
	items, _ := list.([]any)
	out := make([]string, len(items))
	for i := range items {
		out[i] = fmt.Sprintf("%s/%d", at, i)
	}
	return out
}

// resolve follows a JSON pointer into the document, and the references that it meets at its end.
func (c *contract) resolve(pointer string) (string, map[string]any) {
	var at any = c.doc
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		switch v := at.(type) {
		case map[string]any:
			at = v[token]
		case []any:
			var i int
			fmt.Sscan(token, &i) //nolint:errcheck // made by pointers
			at = v[i]
		}
	}
	found := object(at)
	if ref, ok := found["$ref"].(string); ok {
		return c.resolve(strings.TrimPrefix(ref, "#"))
	}
	return pointer, found
}

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func escape(token string) string {
	return strings.ReplaceAll(strings.ReplaceAll(token, "~", "~0"), "/", "~1")
}
