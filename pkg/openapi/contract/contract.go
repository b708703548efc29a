// Package contract is the OpenAPI document at work: what each operation needs and may answer, and validators of
// requests and answers that are compiled once. The gateway asks it before it decides anything; tests hold every answer
// against it.
package contract

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
)

// None is the privilege of the operations that anybody may call, known or not.
const None = "none"

// Operation is one method of one path.
type Operation struct {
	ID        string
	Method    string // upper case
	Path      string // with {parameters}
	Privilege string
	// Feature is the USE flag that the operation belongs to, "" for none.
	Feature string
	// NotImplemented: the operation is documented and answers 501 not_implemented.
	NotImplemented bool
	// Problems are the codes that the operation may answer.
	Problems []problem.Code

	params  []parameter
	body    *body
	answers map[string]answer // by status, or "default"
}

// Contract is the whole document.
type Contract struct {
	operations []*Operation
	byID       map[string]*Operation
	json       []byte
}

// New reads and compiles the document of pkg/openapi. It fails only on a document that is wrong.
func New() (*Contract, error) { return parse(openapi.YAML) }

// Operations lists all, by path and method.
func (c *Contract) Operations() []*Operation { return slices.Clone(c.operations) }

// Operation returns the one of an operationId, nil if there is none.
func (c *Contract) Operation(id string) *Operation { return c.byID[id] }

// JSON is the document as it is served. The caller must not change it.
func (c *Contract) JSON() []byte { return c.json }

// Route finds the operation of a request by its escaped path, with the values of the path's parameters still escaped.
func (c *Contract) Route(method, escapedPath string) (*Operation, map[string]string) {
	segments := strings.Split(escapedPath, "/")
	var best *Operation
	var bestValues map[string]string
	for _, o := range c.operations {
		if o.Method != method {
			continue
		}
		values, ok := match(strings.Split(o.Path, "/"), segments)
		if ok && (best == nil || len(values) < len(bestValues)) { // a fixed segment wins over a parameter
			best, bestValues = o, values
		}
	}
	return best, bestValues
}

func match(pattern, segments []string) (map[string]string, bool) {
	if len(pattern) != len(segments) {
		return nil, false
	}
	values := map[string]string{}
	for i, p := range pattern {
		if name, ok := strings.CutPrefix(p, "{"); ok {
			values[strings.TrimSuffix(name, "}")] = segments[i]
		} else if p != segments[i] {
			return nil, false
		}
	}
	return values, true
}

// The part of the document that is read here; the schemas are left to the compiler.
type (
	document struct {
		Common     []problem.Code              `json:"x-common-problems"`
		Paths      map[string]map[string]entry `json:"paths"`
		Components struct {
			Parameters map[string]parameter `json:"parameters"`
			Headers    map[string]header    `json:"headers"`
			Responses  map[string]response  `json:"responses"`
		} `json:"components"`
	}
	// entry is an operation, or the parameters that the operations of a path share.
	entry struct {
		ID             string              `json:"operationId"`
		Privilege      string              `json:"x-privilege"`
		Feature        string              `json:"x-feature"`
		NotImplemented bool                `json:"x-not-implemented"`
		Problems       []problem.Code      `json:"x-problems"`
		Parameters     []parameter         `json:"parameters"`
		Body           *requestBody        `json:"requestBody"`
		Responses      map[string]response `json:"responses"`
		shared         []parameter
	}
	requestBody struct {
		Required bool                       `json:"required"`
		Content  map[string]json.RawMessage `json:"content"`
	}
	response struct {
		Ref     string                     `json:"$ref"`
		Headers map[string]header          `json:"headers"`
		Content map[string]json.RawMessage `json:"content"`
	}
	header struct {
		Ref      string          `json:"$ref"`
		Required bool            `json:"required"`
		Schema   json.RawMessage `json:"schema"`
	}
)

func (e *entry) UnmarshalJSON(data []byte) error {
	if data[0] == '[' {
		return json.Unmarshal(data, &e.shared)
	}
	type plain entry
	return json.Unmarshal(data, (*plain)(e))
}

const resource = "openapi.json"

func parse(text []byte) (*Contract, error) {
	var whole any
	if err := yaml.Unmarshal(text, &whole); err != nil {
		return nil, fmt.Errorf("read the document: %w", err)
	}
	data, err := json.Marshal(whole)
	if err != nil {
		return nil, fmt.Errorf("read the document: %w", err)
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("read the document: %w", err)
	}
	root, err := jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
	if err != nil {
		return nil, fmt.Errorf("read the document: %w", err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	if err := compiler.AddResource(resource, root); err != nil {
		return nil, fmt.Errorf("read the document: %w", err)
	}

	c := &Contract{byID: map[string]*Operation{}, json: data}
	b := builder{doc: &doc, compiler: compiler}
	for path, methods := range doc.Paths {
		for method, e := range methods {
			if method == "parameters" {
				continue
			}
			o, err := b.operation(path, method, e, methods["parameters"].shared)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", method, path, err)
			}
			if c.byID[o.ID] != nil {
				return nil, fmt.Errorf("operationId %s is given twice", o.ID)
			}
			c.byID[o.ID] = o
			c.operations = append(c.operations, o)
		}
	}
	slices.SortFunc(c.operations, func(a, b *Operation) int {
		return strings.Compare(a.Path+" "+a.Method, b.Path+" "+b.Method)
	})
	return c, nil
}

// mayAnswer says whether the document lists a code for the operation.
func (o *Operation) mayAnswer(code problem.Code) bool { return slices.Contains(o.Problems, code) }

func methodOf(s string) (string, bool) {
	m := strings.ToUpper(s)
	return m, slices.Contains([]string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}, m)
}
